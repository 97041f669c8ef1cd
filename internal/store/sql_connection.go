package store

import (
	"context"
	"database/sql"
	"errors"
)

// connection is one database connection with its prepared statements. It is
// used by one goroutine at a time. Its calls are not cancelled half-way: each
// is short, and an interrupted transaction would leave the truth unknown.
type connection struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt // the program has a fixed set of texts
}

func newConnection(conn *sql.Conn) *connection {
	return &connection{conn: conn, statements: map[string]*sql.Stmt{}}
}

func (c *connection) prepare(query string) (*sql.Stmt, error) {
	if s, ok := c.statements[query]; ok {
		return s, nil
	}
	s, err := c.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, sqlError(err)
	}
	c.statements[query] = s
	return s, nil
}

// exec returns the number of rows that changed.
func (c *connection) exec(query string, args ...any) (int64, error) {
	s, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, sqlError(err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, sqlError(err)
	}
	return n, nil
}

// row scans the first row; false if there is none.
func (c *connection) row(query string, args []any, dest ...any) (bool, error) {
	s, err := c.prepare(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(context.Background(), args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, sqlError(err)
	}
	return true, nil
}

// doc reads one document; nil if there is none.
func (c *connection) doc(query string, args ...any) ([]byte, error) {
	var doc []byte
	_, err := c.row(query, args, &doc)
	return doc, err
}

// query reads every row with scan.
func query[T any](c *connection, scan func(rows *sql.Rows, v *T) error, text string, args ...any) (values []T, err error) {
	s, err := c.prepare(text)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		return nil, sqlError(err)
	}
	defer func() {
		if closing := rows.Close(); closing != nil && err == nil {
			err = sqlError(closing)
		}
	}()
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, sqlError(err)
		}
		values = append(values, v)
	}
	if err := rows.Err(); err != nil {
		return nil, sqlError(err)
	}
	return values, nil
}

func (c *connection) docs(text string, args ...any) ([][]byte, error) {
	return query(c, func(rows *sql.Rows, doc *[]byte) error { return rows.Scan(doc) }, text, args...)
}

func (c *connection) seqDocs(text string, args ...any) ([]seqDoc, error) {
	return query(c, func(rows *sql.Rows, r *seqDoc) error { return rows.Scan(&r.seq, &r.doc) }, text, args...)
}

// read runs fn on one snapshot.
func (c *connection) read(fn func(t tables) error) error {
	if _, err := c.exec("BEGIN"); err != nil {
		return err
	}
	defer c.rollback()
	return fn(&sqlTables{c})
}

// rollback ends a transaction. An error means that there is none any more,
// which is what was wanted.
func (c *connection) rollback() { _, _ = c.exec("ROLLBACK") }

func (c *connection) close() error {
	var errs []error
	for _, s := range c.statements {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.conn.Close())...)
}
