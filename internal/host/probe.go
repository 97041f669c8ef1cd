package host

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Defaults of a probe, for a plan that names none.
const (
	probeInterval = 200 * time.Millisecond
	probeFirst    = 10 * time.Millisecond // doubled with each try up to the interval
	probeTimeout  = 30 * time.Second
	probeTry      = 2 * time.Second // longest single try
	probeReady    = 2 * time.Second // shortest time between tries once it is ready
	probeFailures = 3               // failed tries in a row that make a ready instance unready
)

var probeClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// probe tries once whether the program on a loopback port is ready.
func probe(ctx context.Context, p delivery.Probe, port int) error {
	ctx, cancel := context.WithTimeout(ctx, probeTry)
	defer cancel()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if p.HTTP == "" {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("port %d accepts no connection", port)
		}
		return c.Close()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+p.HTTP, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "tidegate-probe")
	answer, err := probeClient.Do(request)
	if err != nil {
		return fmt.Errorf("port %d does not answer %s", port, p.HTTP)
	}
	defer answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("%s answers %s", p.HTTP, answer.Status)
	}
	return nil
}

func orDefault(d delivery.Duration, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d.Std()
	}
	return otherwise
}
