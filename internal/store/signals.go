package store

import (
	"context"
	"sync"
)

// signals tells waiting readers that something was committed. It holds no
// fact: who is woken looks again.
type signals struct {
	mu       sync.Mutex
	channels map[<-chan struct{}]chan struct{} // by the Done channel of the context that asked
	next     chan struct{}                     // closed at the next audit entry
}

func newSignals() *signals {
	return &signals{channels: map[<-chan struct{}]chan struct{}{}, next: make(chan struct{})}
}

// changed returns the channel that is closed at the next audit entry.
func (s *signals) changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// due returns the channel of ctx. A new one has a value, so that what was
// committed before it existed is not missed.
func (s *signals) due(ctx context.Context) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := ctx.Done()
	if c, ok := s.channels[done]; ok {
		return c
	}
	c := make(chan struct{}, 1)
	c <- struct{}{}
	s.channels[done] = c
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.channels, done)
	})
	return c
}

func (s *signals) notify(due, audit bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if due {
		for _, c := range s.channels {
			select {
			case c <- struct{}{}:
			default: // it has one already
			}
		}
	}
	if audit {
		close(s.next)
		s.next = make(chan struct{})
	}
}
