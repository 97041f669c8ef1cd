package delivery

import "slices"

// Actor is who acts: a person, a CI run, a host, or Tidegate itself.
type Actor struct {
	Subject    string   `json:"subject"`              // unique within the issuer, e.g. "ana"
	Issuer     string   `json:"issuer"`               // who vouches: "tidegate" for its own tokens
	Groups     []string `json:"groups,omitempty"`     // sorted
	Channel    Channel  `json:"channel"`              // the way in
	OnBehalfOf string   `json:"onBehalfOf,omitempty"` // the person behind a machine; may not approve either
}

// Channel is the way in by which an actor came.
type Channel string

// The channels.
const (
	ChannelCLI    Channel = "cli"
	ChannelAPI    Channel = "api"
	ChannelHost   Channel = "host"
	ChannelSystem Channel = "system" // Tidegate itself: an automatic promotion, an automatic rollback
)

// System is Tidegate acting by itself.
func System() Actor {
	return Actor{Subject: "tidegate", Issuer: "tidegate", Channel: ChannelSystem}
}

// IsSystem reports whether a acts for nobody but Tidegate.
func (a Actor) IsSystem() bool { return a.Channel == ChannelSystem }

// In reports whether a belongs to group.
func (a Actor) In(group string) bool { return slices.Contains(a.Groups, group) }

// Same reports whether a and b are one identity, directly or as the person
// on whose behalf a machine acts. It is what separation of duties compares.
func (a Actor) Same(b Actor) bool {
	if a.Subject == b.Subject && a.Issuer == b.Issuer {
		return true
	}
	return a.OnBehalfOf != "" && a.OnBehalfOf == b.Subject || b.OnBehalfOf != "" && b.OnBehalfOf == a.Subject
}

// GroupAdministrators may do everything that no policy forbids.
const GroupAdministrators = "administrators"
