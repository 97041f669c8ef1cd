package wire

import (
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Overview is an application at one time: every environment of its path.
type Overview struct {
	Project      string             `json:"project"`
	Application  string             `json:"application"`
	Description  string             `json:"description,omitempty"`
	Revision     int64              `json:"revision"` // of the Application document
	At           time.Time          `json:"at"`
	Latest       *ReleaseName       `json:"latest,omitempty"` // newest release
	Environments []PlacementStatus  `json:"environments"`     // in the order of the path
	Forecast     *ForecastOfRelease `json:"forecast,omitempty"`
}

// ReleaseName names a release.
type ReleaseName struct {
	Digest    delivery.Digest `json:"digest"`
	Version   string          `json:"version"`
	CreatedAt time.Time       `json:"createdAt"`
}

// PlacementStatus is an application in one environment at one time.
type PlacementStatus struct {
	Environment string                 `json:"environment"`
	Class       delivery.Class         `json:"class"`
	After       []string               `json:"after,omitempty"`
	Promotion   delivery.Promotion     `json:"promotion,omitempty"`
	Targets     []string               `json:"targets,omitempty"`
	Stable      *delivery.Good         `json:"stable,omitempty"`
	Earlier     []delivery.Good        `json:"earlier,omitempty"` // newest first: where a rollback may go
	Active      *delivery.Deployment   `json:"active,omitempty"`  // with its steps, weights and analysis
	Queue       []*delivery.Deployment `json:"queue,omitempty"`   // with the verdicts they wait for; the first is next
	Last        *delivery.Deployment   `json:"last,omitempty"`    // the newest that ended
	Pin         *delivery.Pin          `json:"pin,omitempty"`
	Hold        *delivery.Hold         `json:"hold,omitempty"`
	Quarantine  []delivery.Quarantine  `json:"quarantine,omitempty"`
	Services    []ServiceStatus        `json:"services,omitempty"` // as the targets last reported
}

// ServiceStatus is a service on one target, as the target last reported it.
type ServiceStatus struct {
	Service   string           `json:"service"`
	Target    string           `json:"target"`
	Address   string           `json:"address,omitempty"` // host:port where its requests come in
	At        time.Time        `json:"at"`                // of the report
	Workloads []WorkloadStatus `json:"workloads,omitempty"`
}

// WorkloadStatus is one version of a service on a target.
type WorkloadStatus struct {
	delivery.WorkloadStatus
	Percent int `json:"percent"` // of the requests
}

// DeploymentQuery selects deployments; empty fields select all.
type DeploymentQuery struct {
	Project     string
	Application string
	Environment string
	Release     delivery.Digest
	Active      bool // not ended
}

// InventoryQuery selects inventory; At zero is now.
type InventoryQuery struct {
	Project     string
	Application string
	Environment string
	Artifact    delivery.Digest
	At          time.Time
	History     bool // also what ended
}
