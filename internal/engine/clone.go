package engine

import (
	"maps"
	"slices"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// clonePlacement copies everything that a turn may change, so that Step leaves
// its argument as it was.
func clonePlacement(p delivery.Placement) delivery.Placement {
	p.Earlier = slices.Clone(p.Earlier)
	p.Quarantine = slices.Clone(p.Quarantine)
	p.Running = maps.Clone(p.Running)
	queue := make([]*delivery.Deployment, len(p.Queue))
	for i, d := range p.Queue {
		queue[i] = cloneDeployment(d)
	}
	p.Queue = queue
	p.Active = cloneDeployment(p.Active)
	return p
}

func cloneDeployment(d *delivery.Deployment) *delivery.Deployment {
	if d == nil {
		return nil
	}
	c := *d
	c.Approvals = slices.Clone(d.Approvals)
	c.Steps = slices.Clone(d.Steps)
	for i := range c.Steps {
		c.Steps[i].Pending = slices.Clone(c.Steps[i].Pending)
	}
	return &c
}
