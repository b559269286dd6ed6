package chaos

import "fmt"

func intentID(payer, n int) string { return fmt.Sprintf("p%02d-%03d", payer, n) }

func passPath(pass int) string { return fmt.Sprintf("/pass-%d/", pass) }
