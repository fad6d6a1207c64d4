package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

// atOnce is how many checks a generator has under way.
const atOnce = 4

// callersOrder is what a generator of checks is told to do.
type callersOrder struct {
	Address string
	GRPC    bool
	Calls   int
	Tokens  []string // in turn
}

// callersReport is what it answers.
type callersReport struct {
	Passed int
	Median time.Duration // of one check
}

// callers is the role of a generator of checks, each of which waits for its
// answer. It keeps its connections.
func callers(ctx context.Context) error {
	conns := map[string]*grpc.ClientConn{}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}}
	err := answerAll(func(o callersOrder) (any, error) {
		check := httpCheck(client, o)
		if o.GRPC {
			if conns[o.Address] == nil {
				conn, err := grpc.NewClient(o.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					return nil, err
				}
				conns[o.Address] = conn
			}
			check = grpcCheck(conns[o.Address], o)
		}
		return callAll(ctx, o, check)
	})
	for _, conn := range conns {
		err = errors.Join(err, conn.Close())
	}
	client.CloseIdleConnections()
	return err
}

// callAll makes the calls of an order.
func callAll(ctx context.Context, o callersOrder, check func(context.Context) (bool, error)) (callersReport, error) {
	var all sync.WaitGroup
	took, passed, errs := make([][]time.Duration, atOnce), make([]int, atOnce), make([]error, atOnce)
	for i := range atOnce {
		all.Go(func() {
			for range o.Calls / atOnce {
				begin := time.Now()
				ok, err := check(ctx)
				if err != nil {
					errs[i] = err
					return
				}
				took[i] = append(took[i], time.Since(begin))
				if ok {
					passed[i]++
				}
			}
		})
	}
	all.Wait()
	r := callersReport{}
	for _, n := range passed {
		r.Passed += n
	}
	r.Median = median(slices.Concat(took...))
	return r, errors.Join(errs...)
}

// browser is the headers of a call beside its token.
func browser() map[string]string {
	return map[string]string{
		"accept": "application/json", "accept-encoding": "gzip, deflate, br", "user-agent": "Mozilla/5.0 (X11; Linux x86_64)",
		"x-request-id": "444d2f9b-57d8-4245-bef2-3f8d824741c3", "x-forwarded-for": "203.0.113.7", "content-type": "application/json",
	}
}

func grpcCheck(conn *grpc.ClientConn, o callersOrder) func(context.Context) (bool, error) {
	client := auth.NewAuthorizationClient(conn)
	requests := make([]*auth.CheckRequest, len(o.Tokens))
	for i, token := range o.Tokens {
		headers := browser()
		headers["authorization"] = "Bearer " + token
		requests[i] = &auth.CheckRequest{Attributes: &auth.AttributeContext{Request: &auth.AttributeContext_Request{
			Http: &auth.AttributeContext_HttpRequest{Method: "GET", Path: "/orders/17?expand=items", Host: "api.example.com", Headers: headers},
		}}}
	}
	var turn atomic.Int64
	return func(ctx context.Context) (bool, error) {
		answer, err := client.Check(ctx, requests[int(turn.Add(1))%len(requests)])
		return answer.GetStatus().GetCode() == int32(codes.OK), err
	}
}

func httpCheck(client *http.Client, o callersOrder) func(context.Context) (bool, error) {
	var turn atomic.Int64
	return func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.Address+"/", nil)
		if err != nil {
			return false, err
		}
		for name, value := range browser() {
			req.Header.Set(name, value)
		}
		req.Header.Set("Authorization", "Bearer "+o.Tokens[int(turn.Add(1))%len(o.Tokens)])
		req.Header.Set("X-Original-URI", "/orders/17?expand=items")
		req.Header.Set("X-Original-Method", http.MethodGet)
		resp, err := client.Do(req)
		if err != nil {
			return false, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return false, fmt.Errorf("read an answer: %w", err)
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	}
}
