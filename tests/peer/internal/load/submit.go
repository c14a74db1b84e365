package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// How often a connection looks at what is due.
	tick = 5 * time.Millisecond
	// A node that takes nothing for so long is stuck.
	writeMax = 10 * time.Second
	// What a connection keeps before it sends or parses it, bytes.
	bufferSize = 1 << 16
)

// In the answer to a transaction that the node took, and in no other.
var admission = []byte(`"result":{"code":0,`)

// buffered sends what is due at one time in one go, which saves both sides many system calls.
type buffered struct {
	net.Conn
	mutex     sync.Mutex
	writer    *bufio.Writer
	connected bool
}

// Write keeps what it gets, but for the handshake.
func (b *buffered) Write(bytes []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	count, err := b.writer.Write(bytes)
	if err == nil && !b.connected {
		b.connected = true
		err = b.writer.Flush()
	}
	return count, err
}

// release sends what was kept.
func (b *buffered) release() error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.writer.Flush()
}

// answers counts what nodes said to submits.
type answers struct {
	mutex    sync.Mutex
	sent     int
	admitted int
	rejected map[string]int
	errors   []string
}

func (a *answers) fail(err error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.errors = append(a.errors, err.Error())
}

// submit sends every stride-th request from first on when it is due, until all are sent or the deadline has passed.
func submit(node string, requests [][]byte, first, stride int, due func(int) time.Time, deadline time.Time, answers *answers) {
	var output *buffered
	dialer := websocket.Dialer{
		ReadBufferSize: bufferSize,
		NetDial: func(network, address string) (net.Conn, error) {
			connection, err := net.Dial(network, address)
			output = &buffered{Conn: connection, writer: bufio.NewWriterSize(connection, bufferSize)}
			return output, err
		},
	}
	connection, _, err := dialer.Dial("ws://"+node+"/websocket", nil)
	if err != nil {
		answers.fail(fmt.Errorf("connect to %s: %w", node, err))
		return
	}
	defer connection.Close()
	closing := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { listen(connection, answers, closing) })

	sent := 0
	for index := first; index < len(requests); index += stride {
		if wait := time.Until(due(index)); wait > 0 {
			if err = output.release(); err != nil {
				break
			}
			time.Sleep(max(wait, tick))
		}
		if time.Now().After(deadline) {
			break
		}
		_ = connection.SetWriteDeadline(time.Now().Add(writeMax))
		if err = connection.WriteMessage(websocket.TextMessage, requests[index]); err != nil {
			break
		}
		sent++
	}
	if err == nil {
		err = output.release()
	}
	if err != nil {
		answers.fail(fmt.Errorf("submit to %s: %w", node, err))
	}
	answers.mutex.Lock()
	answers.sent += sent
	answers.mutex.Unlock()
	// Answers may still be on their way.
	time.Sleep(time.Until(deadline))
	close(closing)
	_ = connection.SetReadDeadline(time.Now())
	reading.Wait()
}

// listen counts answers until the connection ends.
func listen(connection *websocket.Conn, answers *answers, closing <-chan struct{}) {
	for {
		_, text, err := connection.ReadMessage()
		if err != nil {
			select {
			case <-closing:
			default:
				answers.fail(fmt.Errorf("read answers: %w", err))
			}
			return
		}
		// Most are of this kind, and to parse them all would take a good part of the load's time.
		if bytes.Contains(text, admission) {
			answers.mutex.Lock()
			answers.admitted++
			answers.mutex.Unlock()
			continue
		}
		var answer struct {
			Result struct {
				Code uint32 `json:"code"`
				Log  string `json:"log"`
			} `json:"result"`
			Error *struct {
				Message string `json:"message"`
				Data    string `json:"data"`
			} `json:"error"`
		}
		reason := ""
		if err := json.Unmarshal(text, &answer); err != nil {
			reason = "unreadable answer"
		} else if answer.Error != nil {
			// What follows are numbers.
			reason, _, _ = strings.Cut(answer.Error.Message+": "+answer.Error.Data, ":")
			if answer.Error.Data != "" {
				reason, _, _ = strings.Cut(answer.Error.Data, ":")
			}
		} else if answer.Result.Code != 0 {
			reason = answer.Result.Log
		}
		answers.mutex.Lock()
		if reason == "" {
			answers.admitted++
		} else {
			answers.rejected[reason]++
		}
		answers.mutex.Unlock()
	}
}
