package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print hsctl's version",
		Example: `hsctl version
hsctl version -o json`,
		Args: positional(0, 0),
		RunE: func(*cobra.Command, []string) error { return runVersion(e) },
	}
}

// runVersion prints one line everywhere, and other forms when asked for.
func runVersion(e *env) error {
	goVersion, platform := runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
	if e.global.output == "" {
		_, err := fmt.Fprintf(e.stdout, "hsctl %s (%s %s)\n", wire.Version, goVersion, platform)
		return err
	}
	v := struct {
		Version  string `json:"version"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{wire.Version, goVersion, platform}
	return e.emit(v, func() *table {
		return &table{header: []string{"version", "go", "platform"}, rows: [][]cell{{text(v.Version), text(v.Go), text(v.Platform)}}}
	})
}
