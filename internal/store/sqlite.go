package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

const (
	// sqliteReaders bounds the connections that read. The driver is slow under
	// many readers on few cores, and reads take microseconds.
	sqliteReaders = 3
	// sqliteBusy is how long another process may hold the database, in milliseconds.
	sqliteBusy = "5000"
	// sqliteJournal is the size in bytes that the journal is cut back to.
	sqliteJournal = "67108864"
)

// OpenSQLite opens the database file at path, creates it (mode 0600) if there
// is none, and brings its schema up to date. The directory must exist. What a
// commit wrote is on the disk when it returns.
func OpenSQLite(ctx context.Context, path string, o Options) (Store, error) {
	b, err := openSQLite(ctx, path)
	if err != nil {
		return nil, err
	}
	return newCore(b, o), nil
}

// sqliteBackend is a database file: one connection that writes, a few that read.
type sqliteBackend struct {
	writer  *writer
	readers chan *connection
	open    []*connection // of readers, to close them
	pools   []*sql.DB
}

func openSQLite(ctx context.Context, path string) (*sqliteBackend, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeInvalid, err, "The database path %q is not a path.", path)
	}
	// SQLite would create it readable for everybody.
	file, err := os.OpenFile(absolute, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The database %s can't be opened: check that its directory exists and that you may write there.", absolute)
	}
	if err := file.Close(); err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The database %s can't be opened.", absolute)
	}
	b := &sqliteBackend{readers: make(chan *connection, sqliteReaders)}
	if err := b.connect(ctx, absolute); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *sqliteBackend) connect(ctx context.Context, path string) error {
	pool, err := b.pool(path, 1, url.Values{"_txlock": {"immediate"}})
	if err != nil {
		return err
	}
	if err := migrate(ctx, pool); err != nil {
		return err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return sqlError(err)
	}
	b.writer = newWriter(newConnection(conn))
	pool, err = b.pool(path, sqliteReaders, url.Values{"_pragma": {"query_only(1)"}})
	if err != nil {
		return err
	}
	for range sqliteReaders {
		conn, err := pool.Conn(ctx)
		if err != nil {
			return sqlError(err)
		}
		c := newConnection(conn)
		b.open = append(b.open, c)
		b.readers <- c
	}
	return nil
}

// pool opens connections with the settings that all share and those given.
func (b *sqliteBackend) pool(path string, size int, settings url.Values) (*sql.DB, error) {
	settings["_pragma"] = append([]string{
		"busy_timeout(" + sqliteBusy + ")",
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"foreign_keys(1)",
		"journal_size_limit(" + sqliteJournal + ")",
	}, settings["_pragma"]...)
	name := url.URL{Scheme: "file", Path: path, RawQuery: settings.Encode()}
	connector, err := sqlite.NewConnector(name.String())
	if err != nil {
		return nil, internalError(err, "opening %s", path)
	}
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(size)
	b.pools = append(b.pools, pool)
	return pool, nil
}

// migrate brings the schema up to date. It never goes back: an older program
// refuses a newer database.
func migrate(ctx context.Context, pool *sql.DB) error {
	files, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		return internalError(err, "migrations")
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, pool, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return internalError(err, "migrations")
	}
	current, newest, err := provider.GetVersions(ctx)
	if err != nil {
		return sqlError(err)
	}
	if current > newest {
		return delivery.Errorf(delivery.CodeInvalid, "The database has schema %d and this tidegate knows only %d: use the newer tidegate that wrote it.", current, newest)
	}
	if _, err := provider.Up(ctx); err != nil {
		return sqlError(err)
	}
	return nil
}

func (b *sqliteBackend) view(ctx context.Context, fn func(t tables) error) error {
	select {
	case c, ok := <-b.readers:
		if !ok {
			return closedError()
		}
		defer func() { b.readers <- c }()
		if err := ctx.Err(); err != nil {
			return ended(err)
		}
		return c.read(fn)
	case <-ctx.Done():
		return ended(ctx.Err())
	}
}

func (b *sqliteBackend) update(ctx context.Context, fn func(t tables) error) error {
	return b.writer.update(ctx, fn)
}

// close waits for what is under way. The writer's connection is closed last:
// with it, SQLite folds the journal into the database.
func (b *sqliteBackend) close() error {
	if b.writer != nil && !b.writer.stop() {
		return nil // closed before
	}
	for range b.open {
		<-b.readers
	}
	close(b.readers)
	var errs []error
	for _, c := range b.open {
		errs = append(errs, c.close())
	}
	if b.writer != nil {
		errs = append(errs, b.writer.connection.close())
	}
	for _, pool := range b.pools {
		errs = append(errs, pool.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return sqlError(err)
	}
	return nil
}

func closedError() error {
	return delivery.Errorf(delivery.CodeUnavailable, "The server is stopping; try again when it runs.")
}

// sqlError says what a database error means to a user.
func sqlError(err error) error {
	if _, ok := errors.AsType[*delivery.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return ended(err)
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return internalError(err, "database")
	}
	unavailable := func(sentence string) error { return delivery.Wrap(delivery.CodeUnavailable, err, "%s", sentence) }
	switch e.Code() & 0xff { // the rest tells kinds of the same error apart
	case sqlite3.SQLITE_FULL:
		return unavailable("The disk of the database is full: make room there and try again. Nothing was changed.")
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
		return unavailable("The database can't be written: check that its directory and files may be written and try again. Nothing was changed.")
	case sqlite3.SQLITE_IOERR:
		return unavailable("The disk of the database fails: check the disk and its free space and try again. Nothing was changed.")
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return unavailable("Another process holds the database: try again. Nothing was changed.")
	case sqlite3.SQLITE_INTERRUPT:
		return ended(err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return delivery.Wrap(delivery.CodeInternal, err, "The database file is damaged or is no tidegate database: restore a backup, or name another file.")
	}
	return internalError(err, "database")
}
