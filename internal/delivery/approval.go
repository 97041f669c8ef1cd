package delivery

import "time"

// ApprovalRule is one requirement: Count distinct people, of Group where it is
// set. Several rules all hold, each counted by itself.
type ApprovalRule struct {
	Count int      `json:"count,omitempty"` // default 1
	Group string   `json:"group,omitempty"` // default: anybody who may approve
	Valid Duration `json:"valid,omitempty"` // how long an approval counts; default 7 days
	From  string   `json:"from,omitempty"`  // who demands it: "path" or a policy; set by Tidegate
}

// Approval is one person's decision about one plan. It counts only for the
// plan it names and only while that plan is what would run.
type Approval struct {
	ID       ID        `json:"id"`
	Plan     Digest    `json:"plan"`
	Step     string    `json:"step,omitempty"` // a rollout's approval step; "" for the start
	Actor    Actor     `json:"actor"`
	At       time.Time `json:"at"`
	Rejected bool      `json:"rejected,omitempty"`
	Comment  string    `json:"comment,omitempty"`
}
