// Package quota keeps the calls for one portal within HubSpot's limits.
package quota
