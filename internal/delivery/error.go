package delivery

import (
	"errors"
	"fmt"
)

// Code says how a caller should react to an [Error].
type Code string

// The codes. Each has exactly one HTTP status (internal/api), one exit code
// (internal/cli) and later one page.
const (
	CodeInvalid     Code = "invalid"     // the request is wrong; change it
	CodeNotFound    Code = "not_found"   // what it names is not there
	CodeConflict    Code = "conflict"    // something changed meanwhile; look again
	CodeDenied      Code = "denied"      // a rule or missing authority refuses it
	CodeUnavailable Code = "unavailable" // try again later
	CodeInternal    Code = "internal"    // our fault; the log has the cause
)

// Error is the one error type that reaches a user. Message is a full sentence
// with the next step; Err, the cause, is logged and never shown.
type Error struct {
	Code     Code      `json:"code"`
	Message  string    `json:"message"`
	Position *Position `json:"position,omitempty"`
	Verdicts []Verdict `json:"verdicts,omitempty"`
	Err      error     `json:"-"`
}

// Position is a place in a file that a user gave. Line and Column count from 1.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String returns "file:line:column", without the parts that are unknown.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Error returns the message, after its position where there is one.
func (e *Error) Error() string {
	if e.Position != nil {
		return e.Position.String() + ": " + e.Message
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an [Error]. A %w verb keeps its operand as the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// Wrap makes an [Error] whose cause is kept but not shown.
func Wrap(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Err: cause}
}

// ErrorCode returns the code of the first [Error] in err's chain, and
// [CodeInternal] for any other error. It is "" for nil.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
