package store

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// writerBatch is the most operations that share a transaction.
const writerBatch = 256

// writer gives all writes one connection, one after the other. Operations that
// come while the disk is being waited for share the next transaction, each in
// a savepoint of its own (group commit). There is no goroutine: of those who
// wait, one does the work of all.
type writer struct {
	connection *connection
	turn       chan struct{} // has a value while somebody writes

	mu     sync.Mutex
	queue  []*operation
	closed bool
}

// operation is one update that waits or is under way.
type operation struct {
	fn     func(t tables) error
	done   chan struct{} // closed when err is final
	err    error
	failed bool // fn itself failed, so that err is final whatever the disk says
}

func newWriter(c *connection) *writer {
	return &writer{connection: c, turn: make(chan struct{}, 1)}
}

func (w *writer) update(ctx context.Context, fn func(t tables) error) error {
	op := &operation{fn: fn, done: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return closedError()
	}
	w.queue = append(w.queue, op)
	w.mu.Unlock()
	ended := ctx.Done()
	for {
		select {
		case <-op.done:
			return op.err
		case w.turn <- struct{}{}:
			w.write(w.take())
			<-w.turn
		case <-ended:
			if w.remove(op) {
				return sqlError(ctx.Err())
			}
			ended = nil // it is being written: the answer must be true
		}
	}
}

// stop lets what is queued finish and refuses the rest; false if it was stopped before.
func (w *writer) stop() bool {
	w.mu.Lock()
	before := w.closed
	w.closed = true
	w.mu.Unlock()
	if before {
		return false
	}
	w.turn <- struct{}{}
	for batch := w.take(); len(batch) > 0; batch = w.take() {
		w.write(batch)
	}
	return true
}

func (w *writer) take() []*operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.queue), writerBatch)
	batch := w.queue[:n:n]
	w.queue = w.queue[n:]
	return batch
}

// remove takes back an operation that nobody has begun.
func (w *writer) remove(op *operation) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, queued := range w.queue {
		if queued == op {
			w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
			return true
		}
	}
	return false
}

// write does a batch. When the disk refuses all of it together, each gets a
// transaction of its own, so that one that is too big fails alone.
func (w *writer) write(batch []*operation) {
	if err := w.transaction(batch); err != nil {
		for _, op := range batch {
			if op.failed {
				continue
			}
			if len(batch) > 1 {
				err = w.transaction([]*operation{op})
			}
			if !op.failed {
				op.err = err
			}
		}
	}
	for _, op := range batch {
		close(op.done)
	}
}

// transaction does operations that did not fail before. Its error is the
// database's: nothing was written.
func (w *writer) transaction(batch []*operation) error {
	c := w.connection
	if _, err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := w.savepoints(batch)
	if err == nil {
		_, err = c.exec("COMMIT")
	}
	if err != nil {
		c.rollback()
	}
	return err
}

func (w *writer) savepoints(batch []*operation) error {
	c := w.connection
	for _, op := range batch {
		if op.failed {
			continue
		}
		if _, err := c.exec("SAVEPOINT operation"); err != nil {
			return err
		}
		if op.err = run(op.fn, &sqlTables{c}); op.err != nil {
			// A disk error may have ended the whole transaction; then this fails too.
			if _, err := c.exec("ROLLBACK TO operation"); err != nil {
				return op.err
			}
			op.failed = true
		}
		if _, err := c.exec("RELEASE operation"); err != nil {
			return err
		}
	}
	return nil
}

// run keeps a programmer's mistake in one operation from taking down those who
// wait with it.
func run(fn func(t tables) error, t tables) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = internalError(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), "update")
		}
	}()
	return fn(t)
}
