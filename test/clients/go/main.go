// Go's net/http and golang.org/x/net/websocket: `go run . ORIGIN`.
package main

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"

	"golang.org/x/net/websocket"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	origin := os.Args[1]
	body := `{"prompt": "Once upon a time", "length": 16, "steps": 4, "seed": 1}`
	answer, err := http.Post(origin+"/generate", "application/json", strings.NewReader(body))
	check(err)
	if answer.StatusCode != 200 {
		check(fmt.Errorf("status %d", answer.StatusCode))
	}
	fmt.Printf(`{"client": "net/http", "language": "Go", "version": "%s", "done": "POST /generate"}`+"\n", runtime.Version())
	socket, err := websocket.Dial(strings.Replace(origin, "http", "ws", 1)+"/generate/stream", "", origin)
	check(err)
	check(websocket.Message.Send(socket, `{"type": "generate", "id": "1", "prompt": "Once", "length": 16, "steps": 4}`))
	for steps := 0; ; {
		var message string
		check(websocket.Message.Receive(socket, &message))
		if strings.Contains(message, `"type":"step"`) {
			steps++
		}
		if strings.Contains(message, `"type":"done"`) {
			if steps != 4 {
				check(fmt.Errorf("%d steps", steps))
			}
			break
		}
	}
	fmt.Printf(`{"client": "golang.org/x/net/websocket", "language": "Go", "version": "%s", "done": "a request over /generate/stream, every step received"}`+"\n", os.Getenv("SOCKET_VERSION"))
}
