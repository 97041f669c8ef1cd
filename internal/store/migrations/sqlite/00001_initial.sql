-- Ids are text, times are microseconds since 1970 UTC (9223372036854775807 is
-- "never"), documents are JSON text with the few queried columns beside them.
-- A column seq numbers rows in the order of their commits.

-- +goose Up
CREATE TABLE placement (
	project     TEXT   NOT NULL,
	application TEXT   NOT NULL,
	environment TEXT   NOT NULL,
	format      BIGINT NOT NULL,
	version     BIGINT NOT NULL,
	token       BIGINT NOT NULL,
	holder      TEXT   NOT NULL,
	expires     BIGINT NOT NULL,
	wake        BIGINT NOT NULL,
	due         BIGINT NOT NULL,
	arrivals    BIGINT NOT NULL,
	seen        BIGINT NOT NULL,
	active_plan TEXT   NOT NULL,
	from_plan   TEXT   NOT NULL,
	PRIMARY KEY (project, application, environment)
);
CREATE INDEX placement_due ON placement (due);
CREATE INDEX placement_active ON placement (active_plan) WHERE active_plan <> '';

CREATE TABLE placement_state (
	project     TEXT NOT NULL,
	application TEXT NOT NULL,
	environment TEXT NOT NULL,
	doc         TEXT NOT NULL,
	PRIMARY KEY (project, application, environment),
	FOREIGN KEY (project, application, environment) REFERENCES placement (project, application, environment)
);

CREATE TABLE command (
	seq         INTEGER PRIMARY KEY,
	id          TEXT    NOT NULL UNIQUE,
	project     TEXT    NOT NULL,
	application TEXT    NOT NULL,
	environment TEXT    NOT NULL,
	consumed    BIGINT  NOT NULL DEFAULT 0,
	doc         TEXT    NOT NULL
);
CREATE INDEX command_open ON command (project, application, environment, seq) WHERE consumed = 0;

CREATE TABLE effect (
	seq         INTEGER PRIMARY KEY,
	deployment  TEXT    NOT NULL,
	sequence    BIGINT  NOT NULL,
	project     TEXT    NOT NULL,
	application TEXT    NOT NULL,
	environment TEXT    NOT NULL,
	target      TEXT    NOT NULL,
	done        BIGINT  NOT NULL DEFAULT 0,
	doc         TEXT    NOT NULL,
	UNIQUE (deployment, sequence)
);
CREATE INDEX effect_open ON effect (project, application, environment, seq) WHERE done = 0;
CREATE INDEX effect_target ON effect (target, seq) WHERE done = 0;

CREATE TABLE result (
	seq         INTEGER PRIMARY KEY,
	deployment  TEXT    NOT NULL,
	sequence    BIGINT  NOT NULL,
	project     TEXT    NOT NULL,
	application TEXT    NOT NULL,
	environment TEXT    NOT NULL,
	consumed    BIGINT  NOT NULL DEFAULT 0,
	doc         TEXT    NOT NULL,
	UNIQUE (deployment, sequence),
	FOREIGN KEY (deployment, sequence) REFERENCES effect (deployment, sequence)
);
CREATE INDEX result_open ON result (project, application, environment, seq) WHERE consumed = 0;

CREATE TABLE turn (
	seq INTEGER PRIMARY KEY,
	doc TEXT    NOT NULL
);
CREATE TABLE turn_deployment (
	deployment TEXT   NOT NULL,
	turn       BIGINT NOT NULL REFERENCES turn (seq),
	PRIMARY KEY (deployment, turn)
);

CREATE TABLE plan (
	digest TEXT PRIMARY KEY,
	doc    TEXT NOT NULL
);
CREATE TABLE plan_target (
	plan   TEXT NOT NULL REFERENCES plan (digest),
	target TEXT NOT NULL,
	PRIMARY KEY (plan, target)
);

CREATE TABLE deployment (
	seq         INTEGER PRIMARY KEY,
	id          TEXT    NOT NULL UNIQUE,
	project     TEXT    NOT NULL,
	application TEXT    NOT NULL,
	environment TEXT    NOT NULL,
	release     TEXT    NOT NULL,
	terminal    BIGINT  NOT NULL,
	doc         TEXT    NOT NULL
);
CREATE INDEX deployment_placement ON deployment (project, application, environment, seq);
CREATE INDEX deployment_release ON deployment (release, seq);
CREATE INDEX deployment_active ON deployment (seq) WHERE terminal = 0;

CREATE TABLE object (
	kind     TEXT   NOT NULL,
	project  TEXT   NOT NULL,
	name     TEXT   NOT NULL,
	revision BIGINT NOT NULL,
	deleted  BIGINT NOT NULL,
	doc      TEXT   NOT NULL,
	PRIMARY KEY (kind, project, name)
);
CREATE TABLE object_revision (
	kind     TEXT   NOT NULL,
	project  TEXT   NOT NULL,
	name     TEXT   NOT NULL,
	revision BIGINT NOT NULL,
	doc      TEXT   NOT NULL,
	PRIMARY KEY (kind, project, name, revision),
	FOREIGN KEY (kind, project, name) REFERENCES object (kind, project, name)
);

CREATE TABLE release (
	seq         INTEGER PRIMARY KEY,
	digest      TEXT    NOT NULL UNIQUE,
	project     TEXT    NOT NULL,
	application TEXT    NOT NULL,
	version     TEXT    NOT NULL,
	doc         TEXT    NOT NULL,
	UNIQUE (project, application, version)
);
CREATE INDEX release_application ON release (project, application, seq);

CREATE TABLE report (
	target TEXT PRIMARY KEY,
	doc    TEXT NOT NULL
);

CREATE TABLE decision_input (
	digest TEXT PRIMARY KEY,
	doc    TEXT NOT NULL
);
CREATE TABLE decision (
	seq     INTEGER PRIMARY KEY,
	id      TEXT    NOT NULL UNIQUE,
	project TEXT    NOT NULL,
	input   TEXT    NOT NULL,
	doc     TEXT    NOT NULL
);
CREATE INDEX decision_project ON decision (project, seq);

CREATE TABLE inventory (
	seq         INTEGER PRIMARY KEY,
	project     TEXT    NOT NULL,
	application TEXT    NOT NULL,
	environment TEXT    NOT NULL,
	target      TEXT    NOT NULL,
	service     TEXT    NOT NULL,
	artifact    TEXT    NOT NULL,
	since       BIGINT  NOT NULL,
	until       BIGINT  NOT NULL,
	doc         TEXT    NOT NULL
);
CREATE INDEX inventory_open ON inventory (project, application, environment, target, service) WHERE until = 9223372036854775807;
CREATE INDEX inventory_placement ON inventory (project, application, environment, seq);
CREATE INDEX inventory_artifact ON inventory (artifact, seq);

CREATE TABLE token (
	id   TEXT PRIMARY KEY,
	hash TEXT NOT NULL UNIQUE,
	doc  TEXT NOT NULL
);
CREATE TABLE host (
	name TEXT PRIMARY KEY,
	doc  TEXT NOT NULL
);
CREATE TABLE idempotency (
	key      TEXT   PRIMARY KEY,
	request  TEXT   NOT NULL,
	response TEXT   NOT NULL,
	at       BIGINT NOT NULL
);
CREATE INDEX idempotency_at ON idempotency (at);

CREATE TABLE audit_entry (
	seq     BIGINT PRIMARY KEY,
	leaf    TEXT   NOT NULL,
	payload TEXT,
	salt    TEXT
);
CREATE TABLE audit_hash (
	seq  BIGINT PRIMARY KEY,
	hash TEXT   NOT NULL
);
