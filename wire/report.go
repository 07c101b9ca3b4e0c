package wire

import (
	"context"
	"net/http"
	"net/url"
)

// A Report is the answer of GET /v1/report/{slug}: what was done for one
// client in a period, by the audit log. It depends on nothing but the log and
// the question.
type Report struct {
	Slug       string `json:"slug"`
	PortalID   int64  `json:"portalId"`
	From       string `json:"from"` // a date or a time, as asked; inclusive
	To         string `json:"to"`   // a date, inclusive, or a time, exclusive
	TZ         string `json:"tz"`   // of the dates
	Checkpoint string `json:"checkpoint"`

	Totals       ReportCounts   `json:"totals"`
	ByDay        []ReportDay    `json:"byDay"`
	ByMethod     []ReportMethod `json:"byMethod"`
	ByObjectType []ReportType   `json:"byObjectType"`
	ByCaller     []ReportCaller `json:"byCaller"`
	ByReason     []ReportReason `json:"byReason"`
	Rows         []ReportRow    `json:"rows"`
	Tokens       []ReportToken  `json:"tokens"`
	Quota        []ReportQuota  `json:"quota"`
	Events       []ReportEvent  `json:"events"`

	ByOperation   []ReportOperation `json:"byOperation"`
	ByCode        []ReportCode      `json:"byCode"` // why calls were refused or failed
	Callers       []ReportProcess   `json:"callers"`
	Objects       []ReportObjects   `json:"objects"`
	AgentRequests ReportCounts      `json:"agentRequests"` // the agent's own: in no other figure but quota's
	Article30     ReportArticle30   `json:"article30"`
	Breach        *ReportBreach     `json:"breach,omitempty"` // where it was asked for
	Recheck       []string          `json:"recheck"`          // commands that prove it
}

// ReportCounts are the figures of one line of a report. A call is counted
// once however many attempts it took; one that was refused is in Denied alone.
type ReportCounts struct {
	Calls         int64 `json:"calls"`
	Attempts      int64 `json:"attempts"`
	Errors        int64 `json:"errors"`      // calls that ended with a status of 400 or more, or without an answer
	Denied        int64 `json:"denied"`      // refused by the agent: nothing left
	Interrupted   int64 `json:"interrupted"` // of the errors: the agent ended before the answer
	RequestBytes  int64 `json:"requestBytes"`
	ResponseBytes int64 `json:"responseBytes"`
}

// What the figures of a report are broken down by.
type (
	// A ReportDay is one day that something happened on.
	ReportDay struct {
		Date string `json:"date"`
		ReportCounts
	}
	// A ReportMethod is one HTTP method.
	ReportMethod struct {
		Method string `json:"method"`
		ReportCounts
	}
	// A ReportType is one object type; "other" is none.
	ReportType struct {
		ObjectType string `json:"objectType"`
		ReportCounts
	}
	// A ReportCaller is one user: by name, or by uid without one.
	ReportCaller struct {
		Caller string `json:"caller"`
		ReportCounts
	}
	// A ReportReason is one reason that callers gave; "" is none.
	ReportReason struct {
		Reason string `json:"reason"`
		ReportCounts
	}
	// A ReportOperation is read, search, create, update, delete or other.
	ReportOperation struct {
		Operation string `json:"operation"`
		ReportCounts
	}
	// A ReportProcess is one program of one user.
	ReportProcess struct {
		UID  int    `json:"uid"`
		User string `json:"user,omitempty"`
		Exe  string `json:"exe,omitempty"`
		Unit string `json:"unit,omitempty"`
		ReportCounts
	}
)

// A ReportRow is a line of the CSV.
type ReportRow struct {
	ClientSlug    string `json:"clientSlug"`
	PortalID      int64  `json:"portalId"`
	Date          string `json:"date"`
	Method        string `json:"method"`
	ObjectType    string `json:"objectType"`
	CallCount     int64  `json:"callCount"`
	ErrorCount    int64  `json:"errorCount"`
	AvgDurationMs int64  `json:"avgDurationMs"` // of all attempts of a call together
}

// A ReportCode says how many calls ended with a status or a code. Calls that
// went well are in none.
type ReportCode struct {
	Code  string `json:"code"` // a status of HubSpot's, or a code of the agent's
	Calls int64  `json:"calls"`
}

// A ReportToken is one token that calls were made with.
type ReportToken struct {
	Fingerprint string `json:"fingerprint"`
	First       Time   `json:"first"`
	Last        Time   `json:"last"`
	Calls       int64  `json:"calls"`
}

// A ReportQuota is what one day took of the portal's quota.
type ReportQuota struct {
	Date      string `json:"date"`
	Used      int64  `json:"used"`                // attempts, the agent's own among them
	Remaining *int64 `json:"remaining,omitempty"` // the least that HubSpot said was left
}

// A ReportEvent is something that happened to the portal: a rotation, a
// quarantine and the like.
type ReportEvent struct {
	Seq              uint64 `json:"seq"`
	TS               Time   `json:"ts"`
	Kind             string `json:"kind"`
	Caller           string `json:"caller,omitempty"`
	TokenFingerprint string `json:"tokenFingerprint,omitempty"`
	Reason           string `json:"reason,omitempty"`
	Error            string `json:"error,omitempty"`
}

// ReportObjects says what was done to the objects of one type.
type ReportObjects struct {
	ObjectType string `json:"objectType"`
	Named      int64  `json:"named"`          // different objects that calls named
	More       bool   `json:"more,omitempty"` // there are more, which were not counted
	Reads      int64  `json:"reads"`          // calls that read, and were answered
	Changes    int64  `json:"changes"`        // calls that changed something, and were answered
	Uncertain  int64  `json:"uncertain"`      // calls that may have been carried out
}

// ReportArticle30 is what the log can prove of a record of processing
// activities (GDPR, Article 30).
type ReportArticle30 struct {
	Purposes      []ReportPurpose   `json:"purposes"`
	WithoutReason int64             `json:"withoutReason"` // calls whose caller gave no reason
	Categories    []ReportCategory  `json:"categories"`
	Recipients    []ReportRecipient `json:"recipients"`
	Retention     ReportRetention   `json:"retention"`
}

// A ReportPurpose is a reason that callers gave.
type ReportPurpose struct {
	Reason string `json:"reason"`
	Calls  int64  `json:"calls"`
}

// A ReportCategory is a category of data, told from the object type.
type ReportCategory struct {
	ObjectType  string `json:"objectType"`
	Description string `json:"description"`
	Reads       int64  `json:"reads"`
	Changes     int64  `json:"changes"`
}

// A ReportRecipient is who the answers went to: a program on this machine.
type ReportRecipient struct {
	Caller        string `json:"caller"`
	Exe           string `json:"exe,omitempty"`
	Unit          string `json:"unit,omitempty"`
	ResponseBytes int64  `json:"responseBytes"`
}

// ReportRetention says what is kept of the client in the log.
type ReportRetention struct {
	FirstRecord *Time `json:"firstRecord,omitempty"` // the oldest that is kept
	Erased      int64 `json:"erased"`                // records of the client before it
}

// A ReportBreach says what could have been read or changed in the period, and
// by whom: every call that was under way in it, save those that HubSpot
// refused.
type ReportBreach struct {
	Objects []BreachObject `json:"objects"`
	More    int64          `json:"more"` // calls about objects that the list has no room for
}

// A BreachObject is an object, or without ID all objects of a type that calls
// did not name: lists, searches, batches.
type BreachObject struct {
	ObjectType    string   `json:"objectType"`
	ObjectID      string   `json:"objectId,omitempty"`
	Reads         int64    `json:"reads"`
	Changes       int64    `json:"changes"`
	Uncertain     int64    `json:"uncertain"` // calls without an answer, or with a 5xx: they may have been carried out
	ResponseBytes int64    `json:"responseBytes"`
	First         Time     `json:"first"`
	Last          Time     `json:"last"`
	Callers       []string `json:"callers"`
	Tokens        []string `json:"tokens"` // fingerprints
	Paths         []string `json:"paths,omitempty"`
}

// Report asks for the report about a slug: from and to as they stand in the
// query, tz a time zone or "" for UTC, with what could have been breached if
// breach is set.
func (c *Client) Report(ctx context.Context, slug Slug, from, to, tz string, breach bool) (*Report, error) {
	q := url.Values{}
	for k, v := range map[string]string{"from": from, "to": to, "tz": tz} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if breach {
		q.Set("breach", "true")
	}
	out := new(Report)
	if err := c.Do(ctx, http.MethodGet, "/v1/report/"+slug.String(), q, nil, out); err != nil {
		return nil, err
	}
	return out, nil
}
