// Command whydrop says where, why and whose packets this host drops.
//
// It must hold nothing but the call of internal/cli.
package main

import (
	"os"

	"github.com/whydrop/whydrop/internal/cli"
)

func main() {
	os.Exit(cli.Main(cli.Args(os.Args), os.Stdin, os.Stdout, os.Stderr))
}
