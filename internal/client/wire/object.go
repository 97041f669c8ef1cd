package wire

import "github.com/tidegate-cd/tidegate/internal/delivery"

// File is one file of configuration, as it was read. Name is what errors call it.
type File struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// Apply asks that all documents of all files become the configuration, or none.
// Documents may lie beside other files that they name (the modules of a PolicySet).
type Apply struct {
	Files  []File           `json:"files"`
	DryRun bool             `json:"dryRun,omitempty"` // check and compare only
	Expect map[string]int64 `json:"expect,omitempty"` // "Kind/name" → the revision it must be at; 0: it must not exist
}

// Applied is what became of each document, in the order of the files.
type Applied struct {
	DryRun    bool            `json:"dryRun,omitempty"`
	Documents []AppliedObject `json:"documents"`
	Warnings  []string        `json:"warnings,omitempty"`
}

// AppliedObject is what became of one document.
type AppliedObject struct {
	Kind     delivery.Kind `json:"kind"`
	Project  string        `json:"project"`
	Name     string        `json:"name"`
	Action   Action        `json:"action"`
	Revision int64         `json:"revision"` // afterwards; of a dry run: that it would have
}

// Action is what applying did to an object.
type Action string

// The actions.
const (
	ActionCreated   Action = "created"
	ActionChanged   Action = "changed"
	ActionUnchanged Action = "unchanged"
	ActionDeleted   Action = "deleted"
)

// Page limits a list: up to Limit items after the cursor of an earlier page.
type Page struct {
	Cursor string
	Limit  int // default 100, at most 1000
}

// List is one page of a list.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"` // cursor of the next page; "" at the end
}
