// Package report counts what a log says of one client in a period. It reads
// records in log order and keeps only sums, so that its memory does not grow
// with the log; the same records give the same report.
//
// What is counted is calls, not attempts: a call belongs to the day of its
// first intent, with all its attempts and bytes, even those that came later.
// How it ended is what its last attempt says. So the days of two reports that
// follow each other add up, and no call is in both.
//
// What callers choose (reasons, object types, IDs) could be without end. Of
// each the first thousands are told apart, and [More] stands for the rest.
package report
