//go:build interop

package webhooks

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// The third item of the going-live checklist: the npm package standardwebhooks believes what is sent with the secret that it has; it refuses
// what was changed, what is 301 seconds old by its clock, and what was signed with the secret of another network's endpoint.
func TestChecklist3Webhooks(t *testing.T) {
	live, test := webhooks.NewSecret(), webhooks.NewSecret()
	t.Setenv("T_TEST", test)
	right, wrong := newReceiver(t, test), newReceiver(t, live)
	app := "webhooks {\n allow_private\n }\n"
	for _, r := range []*receiver{right, wrong} {
		app += fmt.Sprintf("webhook %s {\n secret {env.T_TEST}\n events payment.settled\n }\n", r.hook())
	}
	g := rig.New(t, rig.Options{Site: site, App: app})
	if a, _ := rig.NewBuyer(t, 1).Buy(g.URL("/x")); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	right.await(webhooks.TypeSettled) // which also shows that nobody believes it with a byte more
	var refused []webhook
	for deadline := time.Now().Add(rig.Patience); len(refused) == 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		wrong.do(http.MethodGet, "/received", nil, &refused)
	}
	if len(refused) == 0 || refused[0].Good != 0 || refused[0].Taken {
		t.Errorf("signed for another network: %+v", refused)
	}
	sent := right.all[0]
	at, err := strconv.ParseInt(sent.Headers["webhook-timestamp"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for age, want := range map[int64]int{300: http.StatusNoContent, 301: http.StatusUnauthorized} {
		right.behave(behaviour{Now: (at + age) * 1000})
		header := []string{"Content-Type", "application/json"}
		for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			header = append(header, name, sent.Headers[name])
		}
		if a := rig.NewBuyer(t, 1).Do(t.Context(), http.MethodPost, right.hook(), sent.Body, header...); a.Status != want {
			t.Errorf("%d seconds old: %d %v, want %d", age, a.Status, a.Err, want)
		}
	}
}
