package wire

import "github.com/tidegate-cd/tidegate/internal/delivery"

// NewRelease asks for a release of an application: the services and tasks of
// its document as they are now, with these artifacts. The same content again
// is answered with the same release; a version that names other content
// already is a conflict.
type NewRelease struct {
	Version   string              `json:"version"`
	Artifacts map[string]Artifact `json:"artifacts"` // by service; one under "" is for all services that have none of their own
	Source    delivery.Source     `json:"source,omitzero"`
	Labels    map[string]string   `json:"labels,omitempty"`
}

// Artifact names the file that a service runs: one that was uploaded, or one
// that the server fetches from URL, which must then have that digest.
type Artifact struct {
	Digest delivery.Digest `json:"digest"`
	URL    string          `json:"url,omitempty"` // http or https
}
