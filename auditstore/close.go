package auditstore

import (
	"errors"
	"fmt"
	"time"
)

// closeGrace is how long Close waits for what may never end.
const closeGrace = 2 * time.Second

// Close makes everything queued durable, seals the log and closes it. Readers
// are stopped.
func (s *Store) Close() error { return s.closed() }

func (s *Store) close() error {
	s.mu.Lock()
	s.closing = true
	s.hurry()
	s.mu.Unlock()
	close(s.stopRead)
	s.readers.Wait()
	s.background.Wait()

	ended := make(chan error, 1)
	go func() {
		<-s.stopped
		ended <- errors.Join(s.fill.finish(), s.db.Close())
	}()
	var err error
	select {
	case err = <-ended:
	case <-s.dead:
		// Badger tries for ever to write what it cannot. What was acknowledged
		// is on disk; nothing else must keep the process.
		select {
		case err = <-ended:
		case <-time.After(closeGrace):
			err = errors.New("its database does not end")
		}
	}
	select {
	case <-s.stopped:
	default: // a disk that hangs holds the sequencer, which uses what is left: the lock among it
		return fmt.Errorf("close the audit log: %w", err)
	}
	s.sign.close()
	err = errors.Join(err, s.wal.close())
	if err == nil && s.failure() == nil {
		err = s.renewWAL()
	}
	if err = errors.Join(err, s.dir.close()); err != nil {
		return fmt.Errorf("close the audit log: %w", err)
	}
	return nil
}

// renewWAL leaves a write-ahead log without records: the database has them all.
func (s *Store) renewWAL() error {
	paths := layoutOf(s.cfg.Dir).wal
	h, err := readWAL(paths)
	if err != nil {
		return err
	}
	j, err := startWAL(paths, h, sighting{s.seq.index.tree.Size(), s.seq.index.tree.Root()})
	if err != nil {
		return err
	}
	return j.close()
}
