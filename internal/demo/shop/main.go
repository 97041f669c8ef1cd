// Command shop is the small web application that the demo delivers. How it
// behaves is fixed when it is built, so that each release is another artifact.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
)

// Set by the linker.
var (
	version      = "0"
	errorPercent = "0" // of all requests, spread evenly
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address")
	flag.Parse()
	percent, err := strconv.ParseFloat(errorPercent, 64)
	if err != nil {
		log.Fatalf("errorPercent: %v", err)
	}
	var n atomic.Int64
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Shop-Release", version)
		i := float64(n.Add(1))
		if int(i*percent/100) != int((i-1)*percent/100) {
			http.Error(w, "the till is stuck", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "<h1>Welcome to the shop, release %s</h1>\n", version)
	})
	log.Printf("shop %s listens on %s, debug=%s", version, *listen, os.Getenv("DEBUG"))
	log.Fatal(http.ListenAndServe(*listen, nil))
}
