package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const (
	maxEventLine = 256 << 10
	maxRepeat    = 5 * time.Second
)

// Events follows the event stream until ctx is done or the loop is left. A
// lost connection is made again after the last event that came: nothing is
// missed and nothing comes twice. It ends with an error only when the server
// refuses the request or was not reached at the very first try.
func (c *Client) Events(ctx context.Context, q wire.EventQuery) iter.Seq2[wire.Event, error] {
	return func(yield func(wire.Event, error) bool) {
		last := q.After
		pause := firstPause
		for first := true; ; first = false {
			body, err := c.openEvents(ctx, q, last)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && (first || delivery.ErrorCode(err) != delivery.CodeUnavailable):
				yield(wire.Event{}, err)
				return
			case err == nil:
				more, came := c.readEvents(body, &last, yield)
				if !more || ctx.Err() != nil {
					return
				}
				if came {
					pause = firstPause
				}
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			pause = min(2*pause, maxRepeat)
		}
	}
}

func (c *Client) openEvents(ctx context.Context, q wire.EventQuery, last *int64) (io.ReadCloser, error) {
	v := values("project", q.Project, "application", q.Application, "environment", q.Environment, "deployment", string(q.Deployment))
	for _, t := range q.Types {
		v.Add("type", string(t))
	}
	header := http.Header{"Accept": {"text/event-stream"}}
	if last != nil {
		header.Set("Last-Event-ID", fmt.Sprint(*last))
	}
	response, err := c.send(ctx, request{method: http.MethodGet, path: "/events", query: url.Values(v), header: header})
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// readEvents yields events until the stream ends. More is false when the
// caller has enough; came is true if the stream said anything. It keeps last at
// the last index that the server named, which is ahead of the events when a
// filter leaves some out.
func (c *Client) readEvents(body io.ReadCloser, last **int64, yield func(wire.Event, error) bool) (more, came bool) {
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEventLine)
	var id, data string
	for lines.Scan() {
		came = true
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			id = value
		case "data":
			data += value
		case "":
			if lines.Text() != "" {
				continue // a comment: the heartbeat
			}
			var index int64
			if _, err := fmt.Sscan(id, &index); err == nil {
				if data != "" {
					var e wire.Event
					if err := json.Unmarshal([]byte(data), &e); err != nil {
						return yield(wire.Event{}, delivery.Wrap(delivery.CodeInternal, err, "Event %d of the stream cannot be read; use a newer tidegate.", index)), came
					}
					if !yield(e, nil) {
						return false, came
					}
				}
				*last = &index
			}
			id, data = "", ""
		}
	}
	return true, came
}
