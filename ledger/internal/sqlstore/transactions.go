package sqlstore

import (
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

const transactionColumns = `t.chain_id, t.hash, t.wallet, t.nonce, COALESCE(a.raw, t.raw), t.created_at, t.carries`

const transactionTables = `transactions t
		LEFT JOIN transaction_archive a ON a.chain_id = t.chain_id AND a.hash = t.hash`

// The statements of wallets and transactions.
const (
	// SelectNonce takes chain and wallet.
	SelectNonce = `SELECT next_nonce FROM wallets WHERE chain_id = ? AND address = ?`
	// RaiseNonce takes chain, wallet and nonce, and never lowers it.
	RaiseNonce = `INSERT INTO wallets (chain_id, address, next_nonce) VALUES (?, ?, ?)
		ON CONFLICT (chain_id, address) DO UPDATE SET next_nonce = excluded.next_nonce
		WHERE wallets.next_nonce < excluded.next_nonce`
	// InsertTransaction takes TransactionValues; the same hash stays as it is, and no row is changed.
	InsertTransaction = `INSERT INTO transactions (chain_id, hash, wallet, nonce, raw, carries, created_at)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
	// InsertCarried takes the payment, the payment again, chain, hash and the payment's position in the transaction, and
	// makes the transaction the payment's last one.
	InsertCarried = `INSERT INTO transaction_payments (payment_id, seq, chain_id, hash, position)
		VALUES (?, (SELECT count(*) FROM transaction_payments WHERE payment_id = ?), ?, ?, ?)`

	// SelectByHash takes chain and hash; this and the next give what ScanTransaction reads.
	SelectByHash = `SELECT ` + transactionColumns + ` FROM ` + transactionTables + ` WHERE t.chain_id = ? AND t.hash = ?`
	// SelectByNonce takes chain, wallet and nonce.
	SelectByNonce = `SELECT ` + transactionColumns + ` FROM ` + transactionTables + `
		WHERE t.chain_id = ? AND t.wallet = ? AND t.nonce = ?`
	// SelectByPayment takes the payment.
	SelectByPayment = `SELECT ` + transactionColumns + ` FROM transaction_payments tp
		JOIN transactions t ON t.chain_id = tp.chain_id AND t.hash = tp.hash
		LEFT JOIN transaction_archive a ON a.chain_id = t.chain_id AND a.hash = t.hash
		WHERE tp.payment_id = ? ORDER BY tp.seq`
	// SelectFreed takes chain and wallet, and gives its transactions that carry no payment, oldest first.
	SelectFreed = `SELECT ` + transactionColumns + ` FROM ` + transactionTables + `
		WHERE t.carries = '' AND t.chain_id = ? AND t.wallet = ? ORDER BY t.created_at, t.nonce, t.hash`
	// SelectWallets gives what ScanWallet reads, of all wallets in order.
	SelectWallets = `SELECT chain_id, address, next_nonce FROM wallets ORDER BY chain_id, address`
)

// TransactionValues are the arguments of InsertTransaction.
func TransactionValues(t *ledger.Transaction, created time.Time) []any {
	raw := []byte(t.Raw)
	if raw == nil {
		raw = []byte{}
	}
	return []any{t.ChainID, Octets(t.Hash[:]), Octets(t.Wallet[:]), t.Nonce, raw, strings.Join(t.Payments, " "), Micros(created)}
}

// ScanTransaction reads a transaction, and more.
func ScanTransaction(row Row, t *ledger.Transaction, more ...any) error {
	var payments string
	err := row.Scan(append([]any{
		Natural{&t.ChainID},
		Fixed(t.Hash[:]), Fixed(t.Wallet[:]),
		Natural{&t.Nonce},
		Bytes{(*[]byte)(&t.Raw)},
		Instant{&t.CreatedAt},
		&payments,
	}, more...)...)
	t.Payments = strings.Fields(payments)
	if len(t.Payments) == 0 {
		t.Payments = nil
	}
	return err
}

// ScanWallet reads a wallet without its transactions.
func ScanWallet(row Row, w *ledger.Wallet) error {
	return row.Scan(Natural{&w.ChainID}, Fixed(w.Address[:]), Natural{&w.NextNonce})
}

// Nonce implements ledger.Nonces.
func Nonce(run Query, chainID uint64, wallet common.Address) (nonce uint64, known bool, err error) {
	err = run(SelectNonce, func(row Row) error {
		known = true
		return row.Scan(Natural{&nonce})
	}, chainID, Octets(wallet[:]))
	if err != nil {
		return 0, false, err
	}
	return nonce, known, nil
}

// Transactions reads transactions by one of the statements that select them.
func Transactions(run Query, query string, args ...any) ([]ledger.Transaction, error) {
	return rows(run, func(row Row, t *ledger.Transaction) error { return ScanTransaction(row, t) }, query, args...)
}

// Wallets implements ledger.Books.
func Wallets(run Query) ([]ledger.Wallet, error) {
	got, err := rows(run, ScanWallet, SelectWallets)
	if err != nil {
		return nil, err
	}
	for i := range got {
		w := &got[i]
		if w.Freed, err = Transactions(run, SelectFreed, w.ChainID, Octets(w.Address[:])); err != nil {
			return nil, err
		}
	}
	return got, nil
}
