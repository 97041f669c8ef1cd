package api

import (
	"regexp"
	"strings"
)

var parameter = regexp.MustCompile(`\{([a-z]+)\}`)

// OpenAPI describes the routes in OpenAPI 3.1. It is made from the table that
// the server routes by, so neither can have what the other lacks.
func (a *API) OpenAPI() map[string]any {
	paths := map[string]any{}
	for _, r := range a.Routes() {
		at, _ := paths[r.Pattern].(map[string]any)
		if at == nil {
			at = map[string]any{}
			paths[r.Pattern] = at
		}
		var parameters []any
		for _, m := range parameter.FindAllStringSubmatch(r.Pattern, -1) {
			parameters = append(parameters, map[string]any{"name": m[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
		}
		operation := map[string]any{
			"summary": r.Summary,
			"responses": map[string]any{
				"200":     map[string]any{"description": "done"},
				"default": map[string]any{"description": "an error with code, message and, for denials, verdicts"},
			},
		}
		if parameters != nil {
			operation["parameters"] = parameters
		}
		if r.Access == ByToken {
			operation["security"] = []any{map[string]any{"token": []string{}}}
		}
		at[strings.ToLower(r.Method)] = operation
	}
	return map[string]any{
		"openapi": "3.1.0",
		"info":    map[string]any{"title": "Tidegate", "version": "v1"},
		"paths":   paths,
		"components": map[string]any{"securitySchemes": map[string]any{
			"token": map[string]any{"type": "http", "scheme": "bearer"},
		}},
	}
}
