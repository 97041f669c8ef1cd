package delivery

import (
	"slices"
	"strings"
	"time"
)

// Release is an immutable, content-addressed set of artifacts and
// configuration, and where they came from. Everything but Digest, CreatedAt
// and CreatedBy is content: equal content has one digest on every machine.
type Release struct {
	Digest      Digest            `json:"digest"`
	Project     string            `json:"project"`
	Application string            `json:"application"`
	Version     string            `json:"version"`  // a person's name for it, unique in the application
	Services    []ReleaseService  `json:"services"` // sorted by name
	Before      []Task            `json:"before,omitempty"`
	After       []Task            `json:"after,omitempty"`
	Ordered     bool              `json:"ordered,omitempty"`
	OnFailure   OnFailure         `json:"onFailure,omitempty"`
	Source      Source            `json:"source,omitzero"`
	Labels      map[string]string `json:"labels,omitempty"`
	CreatedAt   time.Time         `json:"createdAt,omitzero"`
	CreatedBy   Actor             `json:"createdBy,omitzero"`
}

// ReleaseService is a service with the artifact it runs.
type ReleaseService struct {
	Service
	Artifact Artifact `json:"artifact"`
	Order    int      `json:"order,omitempty"` // position in the document; waves follow it when Ordered
}

// Artifact is a file named by its digest. Where it was fetched from is not
// part of it: the digest says what it is.
type Artifact struct {
	Digest Digest       `json:"digest"`
	Size   int64        `json:"size"` // bytes
	Kind   ArtifactKind `json:"kind"`
}

// ArtifactKind says how an artifact is made to run.
type ArtifactKind string

// The kinds of artifact for hosts.
const (
	ArtifactExecutable ArtifactKind = "executable"
	ArtifactTar        ArtifactKind = "tar"
	ArtifactTarGzip    ArtifactKind = "tar+gzip"
	ArtifactTarZstd    ArtifactKind = "tar+zstd"
)

// Source says where a release came from.
type Source struct {
	Repository string   `json:"repository,omitempty"`
	Commit     string   `json:"commit,omitempty"`
	Authors    []string `json:"authors,omitempty"` // may not approve
}

// ComputeDigest returns the digest of the release's content.
func (r Release) ComputeDigest() Digest {
	r.Digest, r.CreatedAt, r.CreatedBy = "", time.Time{}, Actor{}
	r.Services = slices.Clone(r.Services)
	slices.SortFunc(r.Services, func(a, b ReleaseService) int { return strings.Compare(a.Name, b.Name) })
	return digestOf("tidegate.release.v1", r)
}

// Reference returns "application@version", the way people name a release.
func (r Release) Reference() string { return r.Application + "@" + r.Version }

// Workload is one service of one release with an environment's values filled
// in: exactly what runs on a target. Its digest is the identity of a running
// version; two deployments with the same workload run the same thing, so the
// service is unchanged between them.
type Workload struct {
	Service   string            `json:"service"`
	Artifact  Artifact          `json:"artifact"`
	Command   string            `json:"command,omitempty"`
	Args      []string          `json:"args,omitempty"` // ${PORT} is left for the target to fill in
	Env       map[string]string `json:"env,omitempty"`
	Secrets   map[string]Secret `json:"secrets,omitempty"`
	Readiness Probe             `json:"readiness,omitzero"`
	Stop      Stop              `json:"stop,omitzero"`
}

// ComputeDigest returns the identity of the workload.
func (w Workload) ComputeDigest() Digest { return digestOf("tidegate.workload.v1", w) }
