// Command etcd is etcd's server, built as an ordinary dependency so that the tests run the version
// that we recommend on any machine with Go.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
