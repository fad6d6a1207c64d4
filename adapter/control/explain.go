package control

import (
	"context"
	"errors"

	"revocation-adapter/adapter/explain"
	"revocation-adapter/adapter/receipts"
)

// explainBody is the body of POST /revocations/explain, which keeps a token out of
// the path, where it would be logged on its way.
type explainBody struct {
	Token string `json:"token"`
	Key   string `json:"key"`
}

func (c *call) explainPosted() error {
	var b explainBody
	if err := c.readJSON(&b, maxForm); err != nil {
		return err
	}
	if (b.Token == "") == (b.Key == "") {
		return invalid("give one of token and key")
	}
	return c.explain(b.Token + b.Key)
}

func (c *call) explainPath() error { return c.explain(c.r.PathValue("key")) }

func (c *call) explainer() explain.Explainer {
	return explain.Explainer{
		Record: c.core.Hub.Record, Claims: c.cfg.ruleClaims(), Grace: c.cfg.Grace, Now: c.cfg.Now,
		Stands: func(ctx context.Context, q receipts.Query) (receipts.Receipt, error) { return c.await(ctx, q, 0) },
	}
}

// explain says whether what is named is revoked, by whom, and which gateways know.
func (c *call) explain(name string) error {
	found, err := c.explainer().Explain(c.r.Context(), name)
	switch {
	case errors.Is(err, explain.ErrName):
		return invalid(err.Error())
	case err != nil:
		return readFault(err)
	}
	answer := struct {
		explain.Explanation
		Gateways *figures `json:"gateways,omitempty"`
	}{Explanation: found}
	if found.Receipt != nil {
		answer.Gateways = c.figures(*found.Receipt)
	}
	return c.json(answer)
}
