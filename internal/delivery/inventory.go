package delivery

import "time"

// InventoryEntry says that a workload was what ran for a service on a target
// from Since until Until (zero: still).
type InventoryEntry struct {
	Key        PlacementKey `json:"key"`
	Target     string       `json:"target"`
	Service    string       `json:"service"`
	Release    Digest       `json:"release"`
	Version    string       `json:"version"`
	Workload   Digest       `json:"workload"`
	Artifact   Digest       `json:"artifact"`
	Plan       Digest       `json:"plan"`
	Deployment ID           `json:"deployment"`
	Since      time.Time    `json:"since"`
	Until      time.Time    `json:"until,omitzero"`
}
