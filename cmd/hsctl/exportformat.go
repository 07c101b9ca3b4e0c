package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// The formats of exports besides JSONL and CSV.
const (
	formatJSONL       = "jsonl"
	formatECS         = "ecs"         // Elastic Common Schema 8
	formatOCSF        = "ocsf"        // OCSF 1.3, class API Activity
	formatCloudEvents = "cloudevents" // CloudEvents 1.0, JSON
)

var exportFormats = []string{formatJSONL, formatCSV, formatECS, formatOCSF, formatCloudEvents}

// convert makes a record's line in a format. raw are its bytes as stored; they
// go along whole wherever the format has a place for them.
func convert(format string, raw []byte, r *chain.Record) ([]byte, error) {
	var v any
	switch format {
	case formatECS:
		v = ecsOf(r)
	case formatOCSF:
		v = ocsfOf(r)
	case formatCloudEvents:
		v = cloudEventOf(raw, r)
	default:
		return raw, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("convert record %d: %w", r.Seq, err)
	}
	return b, nil
}

// object is a JSON object without its empty members.
type object map[string]any

func (o object) set(key string, v any) {
	switch x := v.(type) {
	case string:
		if x == "" {
			return
		}
	case int:
		if x == 0 {
			return
		}
	case int64:
		if x == 0 {
			return
		}
	case object:
		if len(x) == 0 {
			return
		}
	case *int64:
		if x == nil {
			return
		}
	}
	o[key] = v
}

// made is an object of pairs, in any order: JSON sorts its keys.
func made(pairs ...any) object {
	o := object{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if key, ok := pairs[i].(string); ok {
			o.set(key, pairs[i+1])
		}
	}
	return o
}

// failed reports whether a record tells of something that did not work.
func failed(r *chain.Record) bool {
	return r.Error != "" || r.StatusCode >= 400 || r.Kind == chain.CallDenied || r.Kind == chain.CallInterrupted
}

func isCall(r *chain.Record) bool { return strings.HasPrefix(string(r.Kind), "call.") }

// uidOf is a caller's uid; 0 is one too.
func uidOf(c *chain.Caller) string {
	if c == nil {
		return ""
	}
	return fmt.Sprint(c.UID)
}

// ecsOf maps a record to the Elastic Common Schema. What has no field there is
// under hsagent, by its name in the record.
func ecsOf(r *chain.Record) object {
	category, outcome := "configuration", "success"
	types := []string{"info"}
	if isCall(r) {
		category, types = "api", []string{"access"}
	}
	switch {
	case r.Kind == chain.CallIntent:
		outcome, types = "unknown", []string{"start"}
	case r.Kind == chain.CallDenied:
		outcome, types = "failure", []string{"denied"}
	case failed(r):
		outcome = "failure"
	}
	if r.Kind == chain.CallOutcome || r.Kind == chain.CallInterrupted {
		types = []string{"end"}
	}
	caller := chain.Caller{}
	if r.Caller != nil {
		caller = *r.Caller
	}
	event := made("kind", "event", "category", []string{category}, "type", types, "action", string(r.Kind), "outcome", outcome,
		"id", fmt.Sprint(r.Seq), "sequence", r.Seq, "provider", "hsagentd", "dataset", "hsagentd.audit", "reason", r.Reason)
	if r.DurationMs != nil {
		event["duration"] = *r.DurationMs * 1_000_000 // nanoseconds
	}
	path, query, _ := strings.Cut(r.Path, "?")
	return made(
		"@timestamp", r.TS.String(), "ecs", made("version", "8.11.0"), "event", event,
		"http", made("request", made("method", r.Method, "id", r.CallID, "body", made("bytes", r.RequestBytes)),
			"response", made("status_code", r.StatusCode, "body", made("bytes", r.ResponseBytes))),
		"url", made("path", path, "query", query),
		"user", made("id", uidOf(r.Caller), "name", caller.User),
		"process", made("pid", caller.PID, "executable", caller.Exe),
		"error", made("code", r.Error), "service", made("name", "hsagentd", "version", strings.TrimPrefix(r.Actor, "hsagentd/")),
		"organization", made("id", positive(r.PortalID), "name", r.ClientSlug),
		"hsagent", ownOf(r),
	)
}

// ownOf are the fields of a record that other schemas have no place for.
func ownOf(r *chain.Record) object {
	o := made("portalId", r.PortalID, "clientSlug", r.ClientSlug, "attempt", r.Attempt, "callId", r.CallID, "objectType", r.ObjectType, "objectId", r.ObjectID,
		"apiVersion", r.APIVersion, "numErrors", r.NumErrors, "correlationId", r.CorrelationID, "rateLimitRemaining", r.RateLimitRemaining,
		"tokenFingerprint", r.TokenFingerprint, "storeVersion", r.StoreVersion)
	if r.SlugSeq != nil {
		o["slugSeq"] = *r.SlugSeq
	}
	if r.Caller != nil {
		o.set("unit", r.Caller.Unit)
		if r.Caller.Agent {
			o["agent"] = true
		}
	}
	return o
}

// The numbers of OCSF's class API Activity.
const (
	ocsfClass    = 6003
	ocsfCategory = 6 // Application Activity
)

// ocsfActivities are the activities of API Activity by method.
var ocsfActivities = map[string]int{"POST": 1, "GET": 2, "HEAD": 2, "PUT": 3, "PATCH": 3, "DELETE": 4}

// ocsfOf maps a record to OCSF's API Activity; what has no attribute there is
// unmapped.
func ocsfOf(r *chain.Record) object {
	activity, ok := ocsfActivities[r.Method]
	if !ok {
		activity = 99 // other
	}
	status, statusID, severity := "Success", 1, 1
	switch {
	case r.Kind == chain.CallIntent:
		status, statusID = "Unknown", 0
	case failed(r):
		status, statusID, severity = "Failure", 2, 2
	}
	caller := chain.Caller{}
	if r.Caller != nil {
		caller = *r.Caller
	}
	path, query, _ := strings.Cut(r.Path, "?")
	detail := r.Error
	if detail == "" && r.StatusCode >= 400 {
		detail = fmt.Sprint(r.StatusCode)
	}
	operation := string(r.Kind)
	if r.Method != "" {
		operation = r.Method + " " + path
	}
	o := made(
		"time", r.TS.UnixMilli(), "class_uid", ocsfClass, "class_name", "API Activity", "category_uid", ocsfCategory, "category_name", "Application Activity",
		"activity_id", activity, "type_uid", ocsfClass*100+activity, "severity_id", severity, "status", status, "status_code", detail, "status_detail", r.Reason,
		"metadata", made("version", "1.3.0", "uid", fmt.Sprint(r.Seq), "sequence", int64(r.Seq), "correlation_uid", r.CallID, "event_code", string(r.Kind), //nolint:gosec // far below
			"product", made("name", "hsagentd", "vendor_name", "hsagentd", "version", strings.TrimPrefix(r.Actor, "hsagentd/"))),
		"actor", made("user", made("uid", uidOf(r.Caller), "name", caller.User), "process", made("pid", caller.PID, "file", made("path", caller.Exe))),
		"api", made("operation", operation, "version", r.APIVersion, "service", made("name", "HubSpot"),
			"request", made("uid", r.CallID), "response", made("code", r.StatusCode, "error", r.Error)),
		"http_request", made("http_method", r.Method, "url", made("path", path, "query_string", query), "length", r.RequestBytes),
		"http_response", made("code", r.StatusCode, "length", r.ResponseBytes),
		"duration", r.DurationMs, "src_endpoint", made("name", "localhost"),
		"unmapped", ownOf(r),
	)
	if r.ObjectType != "" {
		o["resources"] = []object{made("type", r.ObjectType, "uid", r.ObjectID)}
	}
	o["status_id"] = statusID
	return o
}

// cloudEventOf wraps the record, as it is, in an event of CloudEvents. Its ID
// is the record's number, so that what comes twice can be told.
func cloudEventOf(raw []byte, r *chain.Record) object {
	subject := r.ClientSlug
	return made("specversion", "1.0", "id", fmt.Sprint(r.Seq), "source", "/hsagentd/audit", "type", "hsagentd."+string(r.Kind), "subject", subject,
		"time", wire.At(r.TS.Time).String(), "datacontenttype", "application/json", "data", json.RawMessage(raw))
}
