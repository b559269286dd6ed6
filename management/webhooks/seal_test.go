package webhooks

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A sealed secret is read by who has the key, for the endpoint that it belongs to, and by nobody else.
func TestSecretsAreSealed(t *testing.T) {
	other, err := NewKeys(strings.Repeat("another key ", 3))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.String().Draw(t, "secret")
		sealed := sealingKeys.seal(secret, "we_1")
		if got, err := sealingKeys.open(sealed, "we_1"); err != nil || got != secret {
			t.Fatalf("%q, %v", got, err)
		}
		if again := sealingKeys.seal(secret, "we_1"); again == sealed {
			t.Fatal("the same secret is sealed alike twice")
		}
		if _, err := sealingKeys.open(sealed, "we_2"); err == nil {
			t.Fatal("another endpoint has the secret")
		}
		if _, err := other.open(sealed, "we_1"); err == nil {
			t.Fatal("another key opens it")
		}
		i := rapid.IntRange(0, len(sealed)-1).Draw(t, "byte")
		changed := []byte(sealed)
		changed[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		if got, err := sealingKeys.open(string(changed), "we_1"); err == nil && got != secret {
			t.Fatalf("what was changed is read as %q", got)
		}
		if len(secret) >= 4 && strings.Contains(sealed, secret) {
			t.Fatal("the secret can be seen")
		}
	})
}

// A key is replaced by listing the new one first: what the old one has sealed is read, and sealed anew.
func TestSealingKeysAreReplaced(t *testing.T) {
	r := newReceiver(t)
	b := newBench(t, testSettings())
	e, secret := b.create(r)
	first := b.sealed(e.ID)
	newer, former := "a newer key of thirty-two bytes or more", "a key of at least thirty-two bytes, for tests"
	both, err := NewKeys(newer, former)
	if err != nil {
		t.Fatal(err)
	}
	set := testSettings()
	set.Keys = both
	b.Configure(set)
	b.run()
	if second := b.sealed(e.ID); second == first {
		t.Error("it was not sealed anew")
	}
	if set.Keys, err = NewKeys(newer); err != nil {
		t.Fatal(err)
	}
	b.Configure(set)
	b.happens(TypeSettled, false)
	b.run()
	if all := r.take(); len(all) != 1 || b.verify(secret, all[0]) != nil {
		t.Errorf("delivered: %v", all)
	}
	// Who lost the key tells nobody anything, and says so.
	if set.Keys, err = NewKeys(former); err != nil {
		t.Fatal(err)
	}
	b.Configure(set)
	b.happens(TypeSettled, false)
	b.run()
	if all := r.take(); len(all) != 0 {
		t.Errorf("delivered without the key: %v", all)
	}
	for name, secrets := range map[string][]string{"none": nil, "a short one": {"short"}, "a short second": {newer, "short"}} {
		if _, err := NewKeys(secrets...); err == nil || strings.Contains(err.Error(), newer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sealed is the secret of an endpoint as the ledger has it.
func (b *bench) sealed(id string) string {
	b.t.Helper()
	r, err := load[storedEndpoint](b.t.Context(), b.store, kindEndpoint, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return r.value.Secrets[0].Sealed
}
