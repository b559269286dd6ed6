// Package dashboard looks at the dashboard as people do: in a real browser, over payments that were really made. DASHBOARD_SHOTS names a folder
// for its pictures.
package dashboard
