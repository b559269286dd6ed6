package caddymodule

import (
	"net/http"
	"strings"

	"go.uber.org/zap/zapcore"
)

const redactedValue = "REDACTED"

// secretHeader reports whether a header of that name, or a field called like it, holds a payment or a token. Clients
// may write names in any case, and what folds "_" to "-" later reads X_Payment as X-Payment.
func secretHeader(name string) bool {
	if len(name) < len("cookie") || len(name) > len("x-payment-response") {
		return false
	}
	switch strings.ReplaceAll(strings.ToLower(name), "_", "-") {
	case "payment-signature", "payment-required", "payment-response", "x-payment", "x-payment-response", "x-payment-token",
		"x-access-token", "x-api-key", "sign-in-with-x", "authorization", "cookie", "set-cookie":
		return true
	}
	return false
}

// redactObject is an encoder of objects that leaves out secrets, at any depth.
type redactObject struct{ zapcore.ObjectEncoder }

func (o redactObject) AddArray(key string, v zapcore.ArrayMarshaler) error {
	return o.ObjectEncoder.AddArray(key, redactArrayOf(key, v))
}

func (o redactObject) AddObject(key string, v zapcore.ObjectMarshaler) error {
	return o.ObjectEncoder.AddObject(key, redactObjectMarshaler{v})
}

func (o redactObject) AddReflected(key string, v any) error {
	return o.ObjectEncoder.AddReflected(key, redactReflected(key, v))
}

func (o redactObject) AddString(key, v string) {
	if secretHeader(key) {
		v = redactedValue
	}
	o.ObjectEncoder.AddString(key, v)
}

func (o redactObject) AddByteString(key string, v []byte) {
	if secretHeader(key) {
		v = []byte(redactedValue)
	}
	o.ObjectEncoder.AddByteString(key, v)
}

func (o redactObject) AddBinary(key string, v []byte) {
	if secretHeader(key) {
		o.ObjectEncoder.AddString(key, redactedValue)
		return
	}
	o.ObjectEncoder.AddBinary(key, v)
}

// redactArray is an encoder of arrays whose objects hold no secrets.
type redactArray struct{ zapcore.ArrayEncoder }

func (a redactArray) AppendArray(v zapcore.ArrayMarshaler) error {
	return a.ArrayEncoder.AppendArray(redactArrayMarshaler{v})
}

func (a redactArray) AppendObject(v zapcore.ObjectMarshaler) error {
	return a.ArrayEncoder.AppendObject(redactObjectMarshaler{v})
}

func (a redactArray) AppendReflected(v any) error {
	return a.ArrayEncoder.AppendReflected(redactReflected("", v))
}

type redactObjectMarshaler struct{ zapcore.ObjectMarshaler }

func (m redactObjectMarshaler) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	return m.ObjectMarshaler.MarshalLogObject(redactObject{enc})
}

type redactArrayMarshaler struct{ zapcore.ArrayMarshaler }

func (m redactArrayMarshaler) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	return m.ArrayMarshaler.MarshalLogArray(redactArray{enc})
}

// redactedValues stands for all values of a header.
type redactedValues struct{}

func (redactedValues) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	enc.AppendString(redactedValue)
	return nil
}

func redactArrayOf(key string, v zapcore.ArrayMarshaler) zapcore.ArrayMarshaler {
	if secretHeader(key) {
		return redactedValues{}
	}
	return redactArrayMarshaler{v}
}

// redactReflected looks into the kinds of value that headers come in; encoders write those by reflection.
func redactReflected(key string, v any) any {
	if secretHeader(key) {
		return redactedValue
	}
	switch m := v.(type) {
	case http.Header:
		return redactMap(m, []string{redactedValue})
	case map[string][]string:
		return redactMap(m, []string{redactedValue})
	case map[string]string:
		return redactMap(m, redactedValue)
	case map[string]any:
		clean := make(map[string]any, len(m))
		for name, value := range m {
			clean[name] = redactReflected(name, value)
		}
		return clean
	}
	return v
}

func redactMap[M ~map[string]V, V any](m M, instead V) M {
	if m == nil {
		return nil
	}
	clean := make(M, len(m))
	for name, value := range m {
		if secretHeader(name) {
			value = instead
		}
		clean[name] = value
	}
	return clean
}
