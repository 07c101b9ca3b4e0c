package auditstore

// UnmapNow is Unmap, however little there is to do.
func (s *Store) UnmapNow() error { return unmap(s.db) }
