package management

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caddy-x402/caddy-x402/ledger"
)

type exportInput struct {
	SelectInput
	Format string `query:"format" enum:"csv,json" default:"csv"`
}

type exportOutput struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Body        func(huma.Context)
}

// exporter writes payments.
type exporter interface {
	begin() error
	payment(*Payment) error
	end() error
}

// exportPayments streams: an export may be longer than memory.
func (a *API) exportPayments(_ context.Context, x *exchange, in *exportInput) (*exportOutput, error) {
	s, err := in.selection(x)
	if err != nil {
		return nil, err
	}
	out := &exportOutput{ContentType: "text/csv; charset=utf-8; header=present"}
	if in.Format == "json" {
		out.ContentType = jsonType
	}
	out.Disposition = `attachment; filename="payments.` + in.Format + `"`
	out.Body = func(huma.Context) {
		leave, err := a.exports.enter(x.caller)
		if err != nil {
			x.failure = err
			return
		}
		defer leave()
		ctx := x.r.Context()
		w := x.stream()
		if x.r.Method == http.MethodHead {
			return
		}
		var e exporter = &csvExporter{w: csv.NewWriter(w)}
		if in.Format == "json" {
			e = &jsonExporter{w: w}
		}
		if err := x.shop.export(ctx, s, e); err != nil {
			if ctx.Err() == nil {
				a.log.ErrorContext(ctx, "an export was cut off", slog.String("request", x.id), slog.Any("error", err))
			}
			w.cut()
		}
	}
	return out, nil
}

func (s *Shop) export(ctx context.Context, which Selection, e exporter) error {
	if err := e.begin(); err != nil {
		return err
	}
	_, _, err := s.each(ctx, which, 0, func(p *ledger.Payment) error {
		view := s.payment(p)
		return e.payment(&view)
	})
	if err != nil {
		return err
	}
	return e.end()
}

// jsonExporter writes one array, a payment to a line.
type jsonExporter struct {
	w     io.Writer
	begun bool
}

func (e *jsonExporter) begin() error { return e.write("[") }

func (e *jsonExporter) payment(p *Payment) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encoding a payment: %w", err)
	}
	before := ",\n"
	if !e.begun {
		e.begun, before = true, "\n"
	}
	return e.write(before + string(text))
}

func (e *jsonExporter) end() error { return e.write("\n]\n") }

func (e *jsonExporter) write(s string) error {
	if _, err := io.WriteString(e.w, s); err != nil {
		return fmt.Errorf("writing an export: %w", err)
	}
	return nil
}

// csvExporter writes a table (RFC 4180).
type csvExporter struct{ w *csv.Writer }

var csvColumns = []string{
	"id", "state", "settlement", "delivery", "refund", "reason", "network", "asset", "symbol", "amount", "amount_decimal", "payer", "pay_to", "flow",
	"route", "plan", "method", "host", "uri", "transaction", "block", "final", "created_at", "updated_at", "settled_at", "delivered_at", "plan_until",
}

func (e *csvExporter) begin() error { return e.w.Write(csvColumns) }

func (e *csvExporter) payment(p *Payment) error {
	row := []string{
		p.ID, p.State, p.Settlement, p.Delivery, p.Refund, p.Reason, p.Network, p.Asset, p.Symbol, p.Amount, p.Decimal, p.Payer, p.PayTo, p.Flow,
		p.Route, p.Plan, p.Method, p.Host, p.URI, p.Transaction, strconv.FormatUint(p.Block, 10), strconv.FormatBool(p.Final),
		p.CreatedAt.UTC().Format(time.RFC3339Nano), p.UpdatedAt.UTC().Format(time.RFC3339Nano), cell(p.SettledAt), cell(p.DeliveredAt), cell(p.PlanUntil),
	}
	for i := range row {
		row[i] = harmless(row[i])
	}
	return e.w.Write(row)
}

func (e *csvExporter) end() error {
	e.w.Flush()
	return e.w.Error()
}

func cell(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

// formula is where a spreadsheet may see one: at the beginning of a cell, which it may also see after a semicolon or a tab, by where it is used.
var formula = regexp.MustCompile(`(^|[;\t\r\n])([ "']*[=+\-@\t\r\x{FF0B}\x{FF0D}\x{FF1D}\x{FF20}])`)

// harmless keeps a spreadsheet from taking what a stranger has sent, a host or an address, for a formula.
func harmless(s string) string { return formula.ReplaceAllString(s, "${1}'${2}") }
