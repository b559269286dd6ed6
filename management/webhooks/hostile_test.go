package webhooks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// What can't be told is left out, and said in the log; what comes after it is told.
func TestAnEventThatCantBeTold(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	b.create(r)
	long, err := json.Marshal(map[string]string{"method": strings.Repeat("&", MaxData/6)})
	if err != nil {
		t.Fatal(err)
	}
	b.history.add(Event{ID: "evt_long", Type: TypeSettled, At: b.clock.now(), Data: long})
	b.history.add(Event{ID: "evt.dotted", Type: TypeSettled, At: b.clock.now()})
	told := b.happens(TypeSettled, false)
	b.run()
	if all := r.take(); len(all) != 1 || all[0].event.ID != told.ID {
		t.Errorf("%d came: %v", len(all), all)
	}
}

// A backlog at an endpoint that is slow does not stand before what is for another, and waits at growing distances.
func TestABacklogIsPutOff(t *testing.T) {
	b := newBench(t, testSettings())
	slow, quick := newReceiver(t), newReceiver(t)
	hold := make(chan struct{})
	slow.answers(func(http.ResponseWriter, *http.Request) { <-hold })
	told := make(chan struct{}, 1)
	quick.answers(func(http.ResponseWriter, *http.Request) { told <- struct{}{} })
	b.create(slow, TypeSettled)
	b.create(quick, TypeDelivered)
	const backlog = 6 * duePage
	for range backlog {
		b.happens(TypeSettled, false)
	}
	b.relayAll(t.Context())
	b.clock.pass(time.Second) // the backlog has been due for longer
	b.happens(TypeDelivered, false)
	b.relayAll(t.Context())
	b.sendAll(t.Context()) // one look of those that are made each second
	select {
	case <-told:
	case <-time.After(patience):
		t.Error("the other one was not told")
	}
	due, err := b.store.DueObjects(t.Context(), kindDelivery, b.clock.now(), duePage)
	if err != nil || len(due) > perEndpoint {
		t.Errorf("%d still stand in the way: %v", len(due), err)
	}
	for p, least := range map[place]time.Duration{{}: pauseWell + 1000*spaceWell, {ailing: true}: pauseAiling + 1000*spaceAiling} {
		if first, last := p.pause(1), p.pause(1000); last < least || first >= least {
			t.Errorf("%+v: %s and %s", p, first, last)
		}
		if p.pause(1<<40) > mostSpace+2*pauseAiling {
			t.Errorf("%+v: for ever", p)
		}
	}
	close(hold)
	b.attempts.Wait()
}

// However many endpoints of tests hang, there is room for what is told of real money; and however many hang, for one that is well.
func TestThereIsRoomForTheOthers(t *testing.T) {
	b := newBench(t, testSettings())
	endpoint := func(i int, live bool) *storedEndpoint {
		return &storedEndpoint{Endpoint: Endpoint{ID: fmt.Sprint(i, live), Live: live}}
	}
	taken := 0
	for i := range inAll {
		if _, ok := b.enter(endpoint(i, false)); ok {
			taken++
		}
	}
	p, ok := b.enter(endpoint(0, true))
	if !ok || taken != ofTests {
		t.Errorf("tests have %d places, and there is one for real money: %t", taken, ok)
	}
	b.leave(p)
	other := newBench(t, testSettings())
	taken = 0
	for i := range inAll {
		e := endpoint(i, true)
		other.felt(e.ID, false)
		if _, ok := other.enter(e); ok {
			taken++
		}
	}
	if p, ok = other.enter(endpoint(-1, true)); !ok || taken != ofAiling {
		t.Errorf("those that hang have %d places, and there is one for who is well: %t", taken, ok)
	}
	other.leave(p)
}

// Who never ends an answer that is good has the delivery, and holds nobody up.
func TestAnAnswerThatNeverEnds(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	hungUp := make(chan struct{})
	r.answers(func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-q.Context().Done()
		close(hungUp)
	})
	e, _ := b.create(r)
	b.happens(TypeSettled, false)
	started := time.Now()
	b.run()
	if took := time.Since(started); took >= patience {
		t.Errorf("it took %s", took)
	}
	if d := b.log(e)[0]; d.Status != StatusDelivered || d.AttemptCount != 1 {
		t.Errorf("%+v", d)
	}
	select {
	case <-hungUp:
	case <-time.After(patience):
		t.Error("the connection is still there")
	}
}

// What can't be signed, since the key is lost, waits for the key at growing distances, and not for ever.
func TestTheKeyIsLost(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, secret := b.create(r)
	lost := testSettings()
	lost.Keys = nil
	b.Configure(lost)
	first := b.happens(TypeSettled, false)
	for range 24 * 60 {
		b.run()
		b.clock.pass(time.Minute)
	}
	o, err := b.store.Object(t.Context(), kindDelivery, deliveryID(e.ID, &first))
	if err != nil || o.Version > 100 {
		t.Errorf("in a day it was put off %d times: %v", o.Version-1, err)
	}
	b.Configure(testSettings())
	b.clock.pass(3 * time.Hour)
	b.run()
	if all := r.take(); len(all) != 1 || all[0].event.ID != first.ID || b.verify(secret, all[0]) != nil {
		t.Errorf("when the key was there again: %v", all)
	}
	b.Configure(lost)
	b.happens(TypeSettled, false)
	for range 40 {
		b.run()
		b.clock.pass(24 * time.Hour)
	}
	if d := b.log(e)[0]; d.Status != StatusDead || d.Reason != ReasonRequest {
		t.Errorf("after forty days: %+v", d)
	}
}

// What a receiver sends and nobody reads stays with the receiver.
func TestAFlood(t *testing.T) {
	wrote := make(chan error, 1)
	flood := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		if err := errors.Join(c.Flush(), c.SetWriteDeadline(time.Now().Add(time.Second))); err != nil {
			t.Error(err)
		}
		_, err := w.Write(make([]byte, 16*streamBuffer))
		wrote <- err
	}))
	flood.Config.ErrorLog = log.New(io.Discard, "", 0)
	flood.EnableHTTP2 = true
	flood.StartTLS()
	t.Cleanup(flood.Close)
	client := newClient(PrivateRanges())
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("%T", client.Transport)
	}
	roots := x509.NewCertPool()
	roots.AddCert(flood.Certificate())
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	t.Cleanup(client.CloseIdleConnections)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, flood.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := <-wrote; err == nil || res.ProtoMajor != 2 {
		t.Errorf("%d bytes wait here, by %s", 16*streamBuffer, res.Proto)
	}
}

// 410 is said by an address, not by an endpoint that has left it, which is still told; and those who hear of it hear nothing of what was secret in the address.
func TestGoneFromElsewhere(t *testing.T) {
	b := newBench(t, testSettings())
	r, witness := newReceiver(t), newReceiver(t)
	made, _, err := b.CreateEndpoint(t.Context(), NewEndpoint{URL: r.server.URL + "/hook?token=shibboleth"})
	if err != nil {
		t.Fatal(err)
	}
	b.create(witness, TypeEndpointDisabled)
	left := r.server.URL + "/elsewhere?token=shibboleth"
	r.answers(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := b.UpdateEndpoint(context.WithoutCancel(t.Context()), false, made.ID, EndpointChange{URL: &left}); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusGone)
	})
	b.happens(TypeSettled, false)
	b.run()
	if e, err := b.Endpoint(t.Context(), false, made.ID); err != nil || !e.Active {
		t.Errorf("%+v %v", e, err)
	}
	r.answers(nil)
	b.clock.pass(time.Minute)
	b.run()
	if d := b.log(made)[0]; d.Status != StatusDelivered || d.AttemptCount != 2 {
		t.Errorf("it was not told where it is now: %+v", d)
	}
	r.answers(status(http.StatusGone))
	b.happens(TypeSettled, false)
	b.run()
	if all := witness.take(); len(all) != 1 || strings.Contains(all[0].body, "shibboleth") || !strings.Contains(all[0].body, "/elsewhere") {
		t.Errorf("the other one was told %v", all)
	}
}
