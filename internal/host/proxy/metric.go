package proxy

import (
	"net"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// The labels of every workload's metrics. Release and workload are the first
// twelve digits of their digests. How many there are is bounded by the
// configuration and the workloads that left it within Limits.Gone.
var workloadLabels = []string{"project", "application", "environment", "service", "release", "version", "workload"}

var (
	descRequests = prometheus.NewDesc("tidegate_proxy_requests_total",
		"Requests by the class of their answer; cancelled: the client left first, which is in no other class.", append(workloadLabels[:7:7], "code_class"), nil)
	descErrors = prometheus.NewDesc("tidegate_proxy_errors_total",
		"Requests answered with 500 to 599, not at all, or not to the end: what analysis judges.", workloadLabels, nil)
	descBroken = prometheus.NewDesc("tidegate_proxy_broken_total",
		"Answers that the service broke off after they had begun.", workloadLabels, nil)
	descRetried = prometheus.NewDesc("tidegate_proxy_retries_total",
		"Requests tried again on a second backend, because the first could not be reached.", workloadLabels, nil)
	descDiverted = prometheus.NewDesc("tidegate_proxy_diverted_total",
		"Requests meant for the workload that another one took, because it had no backend.", workloadLabels, nil)
	descInFlight = prometheus.NewDesc("tidegate_proxy_in_flight_requests",
		"Requests under way.", workloadLabels, nil)
	descDuration = prometheus.NewDesc("tidegate_proxy_request_duration_seconds",
		"From a request's head to the end of its answer, or to the first byte of an answer of unknown length.", workloadLabels, nil)
	descWeight = prometheus.NewDesc("tidegate_proxy_weight_percent",
		"Share of the route's requests.", workloadLabels, nil)
	descUnserved = prometheus.NewDesc("tidegate_proxy_unserved_total",
		"Requests that no workload could take, answered with 503.", workloadLabels[:4], nil)
	descListening = prometheus.NewDesc("tidegate_proxy_listening",
		"1 while the route's address accepts requests.", append(workloadLabels[:4:4], "port"), nil)
	descRevision = prometheus.NewDesc("tidegate_proxy_config_revision",
		"Revision of the configuration that is served.", nil, nil)
)

// collector gives Prometheus the counts as they are when it asks.
type collector struct{ s *server }

func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRequests, descErrors, descBroken, descRetried, descDiverted, descInFlight, descDuration, descWeight, descUnserved, descListening, descRevision} {
		out <- d
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	counter, gauge := prometheus.CounterValue, prometheus.GaugeValue
	out <- prometheus.MustNewConstMetric(descRevision, gauge, float64(c.s.config.Revision))
	for _, r := range c.s.order {
		labels := routeLabels(r.id)
		out <- prometheus.MustNewConstMetric(descUnserved, counter, float64(r.unserved.Load()), labels...)
		listening, port := 0.0, ""
		if r.door != nil {
			listening = 1
			_, port, _ = net.SplitHostPort(r.door.address)
		}
		out <- prometheus.MustNewConstMetric(descListening, gauge, listening, append(labels, port)...)
		for _, g := range r.table.Load().groups {
			out <- prometheus.MustNewConstMetric(descWeight, gauge, float64(g.percent), tallyLabels(g.counter.tally())...)
		}
	}
	for _, t := range c.s.tallies() {
		labels := tallyLabels(t)
		for class, n := range t.Classes {
			if n > 0 || class == 2 || class == 5 { // series that alerts divide by are there from the first scrape on
				out <- prometheus.MustNewConstMetric(descRequests, counter, float64(n), append(labels[:7:7], classes[class])...)
			}
		}
		out <- prometheus.MustNewConstMetric(descRequests, counter, float64(t.Cancelled), append(labels[:7:7], "cancelled")...)
		out <- prometheus.MustNewConstMetric(descErrors, counter, float64(t.Errors), labels...)
		out <- prometheus.MustNewConstMetric(descBroken, counter, float64(t.Broken), labels...)
		out <- prometheus.MustNewConstMetric(descRetried, counter, float64(t.Retried), labels...)
		out <- prometheus.MustNewConstMetric(descDiverted, counter, float64(t.Diverted), labels...)
		out <- prometheus.MustNewConstMetric(descInFlight, gauge, float64(t.InFlight), labels...)
		buckets, sum := make(map[float64]uint64, len(latencyBounds)), uint64(0)
		for i, bound := range latencyBounds {
			sum += uint64(t.Buckets[i])
			buckets[bound] = sum
		}
		sum += uint64(t.Buckets[len(latencyBounds)])
		out <- prometheus.MustNewConstHistogram(descDuration, sum, float64(t.Sum)/1e9, buckets, labels...)
	}
}

func routeLabels(id RouteID) []string {
	return []string{id.Placement.Project, id.Placement.Application, id.Placement.Environment, id.Service}
}

// tallyLabels returns the values of workloadLabels. A version that is not
// UTF-8 is written in Go's quoted form, since Prometheus refuses it.
func tallyLabels(t tally) []string {
	version := t.Version
	if quoted := strconv.Quote(version); len(quoted) != len(version)+2 {
		version = quoted[1 : len(quoted)-1]
	}
	return append(routeLabels(t.Key.Route), t.Release.Short(), version, t.Key.Workload.Short())
}
