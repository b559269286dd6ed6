package kmstest

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/crypto"
)

const mimeType = "application/x-amz-json-1.1"

// refusal is an error of the service.
type refusal struct {
	status     int
	code, text string
}

func bad(code, text string) *refusal { return &refusal{http.StatusBadRequest, code, text} }

func (r *refusal) write(w http.ResponseWriter) { refuse(w, r.status, r.code, r.text) }

func refuse(w http.ResponseWriter, status int, code, text string) {
	write(w, status, map[string]string{"__type": code, "message": text})
}

func write(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", mimeType)
	w.Header().Set("X-Amzn-Requestid", "c6f32c7e-0000-4000-8000-000000000000")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

const (
	specSecp256k1 = "ECC_SECG_P256K1"
	usageSign     = "SIGN_VERIFY"
	algorithm     = "ECDSA_SHA_256"
)

func (s *Server) answer(r Request) (any, *refusal) {
	id, key := s.find(r.In.KeyID)
	arn := ARN(id)
	switch {
	case key == nil:
		return nil, bad("NotFoundException", "Key '"+r.In.KeyID+"' does not exist")
	case slices.Contains(key.Denied, r.Op):
		return nil, bad("AccessDeniedException", "User: arn:aws:iam::"+Account+":user/caddy is not authorized to perform: kms:"+r.Op+
			" on resource: "+arn+" because no identity-based policy allows the kms:"+r.Op+" action")
	case key.State == "Disabled":
		return nil, bad("DisabledException", arn+" is disabled.")
	case key.State == "PendingDeletion":
		return nil, bad("KMSInvalidStateException", arn+" is pending deletion.")
	}
	spec, usage := key.Spec, key.Usage
	if spec == "" {
		spec = specSecp256k1
	}
	if usage == "" {
		usage = usageSign
	}
	switch r.Op {
	case "GetPublicKey":
		public := key.Public
		if public == nil {
			public = marshalPublic(&key.Private.PublicKey)
		}
		return map[string]any{
			"KeyId": arn, "KeySpec": spec, "CustomerMasterKeySpec": spec, "KeyUsage": usage,
			"PublicKey": public, "SigningAlgorithms": []string{algorithm},
		}, nil
	case "Sign":
		return key.sign(arn, spec, usage, r.In)
	}
	return nil, bad("UnknownOperationException", "")
}

// find gives the key that a request names: by id, ARN, alias or the alias' ARN.
func (s *Server) find(name string) (id string, key *Key) {
	prefix := strings.TrimSuffix(ARN(""), "key/")
	name = strings.TrimPrefix(name, prefix)
	name = strings.TrimPrefix(name, "key/")
	if to, ok := s.aliases[name]; ok {
		name = to
	}
	return name, s.keys[name]
}

func (k *Key) sign(arn, spec, usage string, in Input) (any, *refusal) {
	if usage != usageSign {
		return nil, bad("InvalidKeyUsageException", arn+" key usage is "+usage+" which is not valid for Sign.")
	}
	if in.SigningAlgorithm != algorithm || spec != specSecp256k1 {
		return nil, bad("InvalidKeyUsageException", "Algorithm "+in.SigningAlgorithm+" is incompatible with key spec "+spec+".")
	}
	var digest []byte
	switch in.MessageType {
	case "DIGEST":
		if digest = in.Message; len(digest) != sha256.Size {
			return nil, bad("ValidationException", "Digest is invalid length for algorithm "+algorithm+".")
		}
	case "", "RAW":
		sum := sha256.Sum256(in.Message)
		digest = sum[:]
	default:
		return nil, bad("ValidationException", "MessageType")
	}
	if in.DryRun {
		return nil, bad("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")
	}
	signature, err := k.der(digest)
	if err != nil {
		return nil, &refusal{http.StatusInternalServerError, "KMSInternalException", ""}
	}
	return map[string]any{"KeyId": arn, "Signature": signature, "SigningAlgorithm": algorithm}, nil
}

// der signs with low s or high, as the key says; a service does not care.
func (k *Key) der(digest []byte) ([]byte, error) {
	low, err := crypto.Sign(digest, k.Private)
	if err != nil {
		return nil, err
	}
	r, s := new(big.Int).SetBytes(low[:32]), new(big.Int).SetBytes(low[32:64])
	if k.S == HighS || k.S == EitherS && digest[0]&1 == 1 {
		s.Sub(k.Private.Params().N, s)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

// marshalPublic is a key as SubjectPublicKeyInfo. Keys of other curves are for Key.Public.
func marshalPublic(key *ecdsa.PublicKey) []byte {
	point := crypto.FromECDSAPub(key)
	var info struct {
		Algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
		Point     asn1.BitString
	}
	info.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	info.Algorithm.Curve = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	info.Point = asn1.BitString{Bytes: point, BitLength: 8 * len(point)}
	b, err := asn1.Marshal(info)
	if err != nil {
		return nil
	}
	return b
}

// PublicKey is what the server says to be a key's public part.
func (s *Server) PublicKey(id string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[id]
	if k == nil {
		return nil
	}
	if k.Public != nil {
		return k.Public
	}
	return marshalPublic(&k.Private.PublicKey)
}
