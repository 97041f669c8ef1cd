# METADATA
# description: What may run in production.
package tidegate.production

# A debug build writes customers' data to its log.
deny contains {
	"message": sprintf("Service %s runs with DEBUG on.", [step.rollout.service]),
	"hint": "remove DEBUG from spec.services[0].env in shop.yaml and make a new release",
	"path": sprintf("services.%s.env.DEBUG", [step.rollout.service]),
	"severity": "mandatory",
} if {
	some wave in input.plan.waves
	some step in wave.steps
	step.rollout.workload.env.DEBUG == "true"
}
