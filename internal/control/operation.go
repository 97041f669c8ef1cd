package control

// Operation is what somebody may or may not do.
type Operation string

// The operations. Those that the table below does not give to a group are for
// administrators only.
const (
	OpRead      Operation = "read"
	OpConfigure Operation = "configure"
	OpRelease   Operation = "create releases"
	OpPromote   Operation = "promote"
	OpSteer     Operation = "steer deployments"
	OpApprove   Operation = "approve"
	OpRestrain  Operation = "pin, hold and quarantine"
	OpIdentify  Operation = "manage tokens and hosts"
)

// The groups that have a meaning without any configuration.
const (
	GroupDeployers = "deployers"
	GroupApprovers = "approvers"
)

// operations says which groups may do what besides administrators. Everybody
// who is signed in may read. Which approval counts for what is the gates'
// matter: whoever is in a group that a rule names must be able to give one, so
// giving one is open to every member of a group.
var operations = map[Operation][]string{
	OpRelease:  {GroupDeployers},
	OpPromote:  {GroupDeployers},
	OpSteer:    {GroupDeployers},
	OpRestrain: {GroupDeployers},
}
