// Command peer-network runs four CometBFT validators on loopback addresses until its standard input ends or it is told to stop. On
// standard output it says one line, "ready", when all of them are connected and make blocks.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	validators = 4
	portP2P    = 26656
	portRPC    = 26657
	// How long the validators may take to come up.
	startMax = 30 * time.Second
	// How long they may take to stop before they are killed.
	stopMax = 5 * time.Second
	// The chain has proven itself at this height.
	heightMin = 2
)

func main() {
	// A validator is killed when the thread that started it ends; so it must be the last one.
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peer-network:", err)
		os.Exit(1)
	}
}

func run() error {
	programs := flag.String("programs", "", "folder with cometbft and signed-node")
	settings := flag.String("config", "", "settings that differ from CometBFT's own, TOML")
	application := flag.String("application", "kvstore", "kvstore, signed or signed_in_blocks")
	folder := flag.String("dir", "", "empty folder for the validators")
	collect := flag.Int("gogc", 100, "garbage is collected when the heap has grown by this many percent; 100 is what Go does by itself")
	address := flag.String("address", "127.0.91.1", "address of the first validator; the others follow")
	flag.Parse()
	first := net.ParseIP(*address).To4()
	if *programs == "" || *settings == "" || *folder == "" || !first.IsLoopback() || first[3] > 255-validators {
		return errors.New("give --programs, --config and --dir; --address must be a loopback address with room for four")
	}

	hosts := make([]string, validators)
	for index := range hosts {
		hosts[index] = net.IPv4(first[0], first[1], first[2], first[3]+byte(index)).String()
	}
	// Otherwise the validators of another network would be taken for ours.
	if err := free(hosts); err != nil {
		return err
	}

	setup := exec.Command(filepath.Join(*programs, "cometbft"), "testnet", "--v", strconv.Itoa(validators),
		"--o", *folder, "--config", *settings, "--starting-ip-address", *address)
	if output, err := setup.CombinedOutput(); err != nil {
		return fmt.Errorf("cometbft testnet: %w\n%s", err, output)
	}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	left := make(chan struct{})
	go func() {
		// Whoever started us is gone when this ends.
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(left)
	}()

	program := "cometbft"
	if *application != "kvstore" {
		program = "signed-node"
	}
	ended := make(chan error, validators)
	var nodes []*exec.Cmd
	defer func() { end(nodes, ended) }()
	for index, host := range hosts {
		node, err := start(filepath.Join(*programs, program), filepath.Join(*folder, fmt.Sprint("node", index)), host, *application, *collect)
		if err != nil {
			return err
		}
		go func() { ended <- node.Wait() }()
		nodes = append(nodes, node)
	}

	announced := false
	deadline := time.Now().Add(startMax)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-left:
			return nil
		case <-stop:
			return nil
		case err := <-ended:
			nodes = gone(nodes)
			return fmt.Errorf("a validator ended by itself: %v\n%s", err, lastWords(*folder))
		case <-tick.C:
			switch {
			case announced:
			case ready(hosts):
				announced = true
				fmt.Println("ready")
			case time.Now().After(deadline):
				return fmt.Errorf("the validators did not come up in %v\n%s", startMax, lastWords(*folder))
			}
		}
	}
}

// free fails if an address is in use.
func free(hosts []string) error {
	for _, host := range hosts {
		for _, port := range []int{portP2P, portRPC} {
			listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				return fmt.Errorf("another network may be running; stop it or give another --address: %w", err)
			}
			_ = listener.Close()
		}
	}
	return nil
}

func start(program, home, host, application string, collect int) (*exec.Cmd, error) {
	log, err := os.Create(home + ".log")
	if err != nil {
		return nil, fmt.Errorf("create a log: %w", err)
	}
	defer log.Close()
	node := exec.Command(program, "start", "--home", home, "--proxy_app", application,
		"--p2p.laddr", fmt.Sprintf("tcp://%s:%d", host, portP2P), "--rpc.laddr", fmt.Sprintf("tcp://%s:%d", host, portRPC))
	node.Env = append(os.Environ(), fmt.Sprint("GOGC=", collect))
	node.Stdout, node.Stderr = log, log
	node.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := node.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return node, nil
}

// end stops the validators and waits for them.
func end(nodes []*exec.Cmd, ended <-chan error) {
	for _, node := range nodes {
		_ = node.Process.Signal(syscall.SIGTERM)
	}
	deadline := time.After(stopMax)
	for left := len(nodes); left > 0; left-- {
		select {
		case <-ended:
		case <-deadline:
			// One that is gone already refuses, which is as good.
			for _, node := range nodes {
				_ = node.Process.Kill()
			}
			deadline = nil
			left++
		}
	}
}

// gone leaves one fewer to wait for; which one does not matter, as a signal to a process that has been waited for is refused.
func gone(nodes []*exec.Cmd) []*exec.Cmd {
	alive := nodes[:0]
	for _, node := range nodes {
		if node.ProcessState == nil {
			alive = append(alive, node)
		}
	}
	return alive
}

// ready tells whether every validator has all others as peers and the chain grows.
func ready(hosts []string) bool {
	for _, host := range hosts {
		var peers struct {
			Result struct {
				Peers string `json:"n_peers"`
			} `json:"result"`
		}
		var status struct {
			Result struct {
				Sync struct {
					Height     string `json:"latest_block_height"`
					CatchingUp bool   `json:"catching_up"`
				} `json:"sync_info"`
			} `json:"result"`
		}
		if get(host, "net_info", &peers) != nil || get(host, "status", &status) != nil {
			return false
		}
		height, err := strconv.Atoi(status.Result.Sync.Height)
		if err != nil || height < heightMin || status.Result.Sync.CatchingUp || peers.Result.Peers != strconv.Itoa(validators-1) {
			return false
		}
	}
	return true
}

func get(host, method string, answer any) error {
	client := http.Client{Timeout: 2 * time.Second}
	response, err := client.Get(fmt.Sprintf("http://%s:%d/%s", host, portRPC, method))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(answer)
}

// lastWords is the end of every validator's log.
func lastWords(folder string) string {
	var words bytes.Buffer
	for index := range validators {
		name := filepath.Join(folder, fmt.Sprintf("node%d.log", index))
		if log, err := os.ReadFile(name); err == nil {
			fmt.Fprintf(&words, "%s:\n%s\n", name, log[max(0, len(log)-2000):])
		}
	}
	return words.String()
}
