// Package auditstore keeps the audit log on disk.
package auditstore
