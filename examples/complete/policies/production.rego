# METADATA
# description: What may run in production.
package tidegate.production

rollouts contains r if {
	some wave in input.plan.waves
	some step in wave.steps
	r := step.rollout
}

# A debug build writes customers' data to its log.
deny contains {
	"message": sprintf("Service %s runs with DEBUG on.", [r.service]),
	"hint": sprintf("remove DEBUG from spec.services of %s, or set it to \"false\"", [r.service]),
	"path": sprintf("services.%s.env.DEBUG", [r.service]),
	"severity": "overridable",
	"labels": {"SOC2": "CC6.1"},
} if {
	some r in rollouts
	r.workload.env.DEBUG == "true"
}

# Two people look at what a machine promotes.
require contains {"approvals": {"count": 2, "group": "operations"}} if {
	input.actor.channel == "system"
}

warn contains "The release names no commit: say --commit when you create it." if {
	not input.release.source.commit
}
