package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// isolate gives a command its own processes and mounts, where that is allowed:
// what it starts and mounts is gone when it is.
func isolate(ctx context.Context, cmd *exec.Cmd) {
	attributes := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	try := exec.CommandContext(ctx, "true")
	try.SysProcAttr = attributes
	if try.Run() == nil {
		cmd.SysProcAttr = attributes
	}
}

// isolated says whether this process was.
func isolated() bool { return os.Getpid() == 1 }

// settleIn makes /proc show the processes that there are now.
func settleIn() error {
	if !isolated() {
		return nil
	}
	return syscall.Mount("proc", "/proc", "proc", 0, "")
}

// diskSize is room for what a run stores.
const diskSize = "size=128m"

// mountDisk mounts a small disk at a path.
func mountDisk(path string) error {
	if !isolated() {
		return errors.New("mounting a small disk needs root and a mount namespace")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, diskSize); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	return nil
}

// cutter cuts processes off the network: each is in a control group of its own,
// and two programs in the kernel drop every packet from and to that group.
type cutter struct {
	groups   string // directory of the groups
	programs [2]int // file descriptors, by attachment
}

// attachments are where a program of a control group sees packets.
func attachments() [2]uint32 {
	return [2]uint32{unix.BPF_CGROUP_INET_INGRESS, unix.BPF_CGROUP_INET_EGRESS}
}

// newCutter makes the groups of a run.
func newCutter(dir string) (*cutter, error) {
	groups, err := groupsOf(dir)
	if err != nil {
		return nil, err
	}
	c := &cutter{groups: groups}
	for i, at := range attachments() {
		if c.programs[i], err = loadDrop(at); err != nil {
			return nil, fmt.Errorf("load a program into the kernel: %w", err)
		}
	}
	return c, os.MkdirAll(groups, 0o755) //nolint:gosec // as every control group
}

// wrap returns a program that starts binary in the group called $NODE_NAME.
func (c *cutter) wrap(binary string) (string, error) {
	path := binary + ".sh"
	text := fmt.Sprintf("#!/bin/sh\nset -e\nmkdir -p '%[1]s'/$NODE_NAME\necho 0 >'%[1]s'/$NODE_NAME/cgroup.procs\nexec '%[2]s' \"$@\"\n",
		c.groups, binary)
	return path, os.WriteFile(path, []byte(text), 0o700) //nolint:gosec // it is to be run
}

func (c *cutter) cut(name string) error   { return c.each(unix.BPF_PROG_ATTACH, name) }
func (c *cutter) uncut(name string) error { return c.each(unix.BPF_PROG_DETACH, name) }

// attachArgs are those of BPF_PROG_ATTACH and BPF_PROG_DETACH.
type attachArgs struct{ target, program, at, flags uint32 }

func (c *cutter) each(command int, name string) error {
	group, err := os.Open(filepath.Join(c.groups, name))
	if err != nil {
		return err
	}
	defer group.Close() //nolint:errcheck // a directory
	var errs []error
	for i, at := range attachments() {
		args := attachArgs{target: uint32(group.Fd()), program: uint32(c.programs[i]), at: at}
		_, err := bpf(command, unsafe.Pointer(&args), unsafe.Sizeof(args))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// loadArgs are those of BPF_PROG_LOAD, as far as they are used.
type loadArgs struct {
	kind, count           uint32
	instructions, license uint64
	logLevel, logSize     uint32
	log                   uint64
	kernel, flags         uint32
	name                  [16]byte
	device, at            uint32
}

// loadDrop loads a program that lets nothing pass.
func loadDrop(at uint32) (int, error) {
	instructions := [...]uint64{0xb7, 0x95} // r0 = 0; exit
	license := [...]byte{'G', 'P', 'L', 0}
	args := loadArgs{
		kind: unix.BPF_PROG_TYPE_CGROUP_SKB, count: uint32(len(instructions)), at: at,
		instructions: uint64(uintptr(unsafe.Pointer(&instructions))), license: uint64(uintptr(unsafe.Pointer(&license))),
	}
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&args), unsafe.Sizeof(args))
}

func bpf(command int, args unsafe.Pointer, size uintptr) (int, error) {
	result, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(args), size)
	if errno != 0 {
		return 0, errno
	}
	return int(result), nil
}

// groupsOf is where the control groups of a run are.
func groupsOf(dir string) (string, error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer mounts.Close() //nolint:errcheck // was only read
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return filepath.Join(fields[1], filepath.Base(dir)), nil
		}
	}
	return "", errors.New("there are no control groups of version 2")
}

// removeGroups removes the control groups of a run whose processes have ended.
func removeGroups(dir string) error {
	groups, err := groupsOf(dir)
	if err != nil {
		return nil //nolint:nilerr // then there are none
	}
	inner, err := filepath.Glob(filepath.Join(groups, "n*"))
	if err != nil {
		return err
	}
	for _, group := range append(inner, groups) {
		for range 50 { // a process that was killed takes a moment to leave
			if err = os.Remove(group); err == nil || os.IsNotExist(err) {
				err = nil
				break
			}
			<-time.After(20 * time.Millisecond)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
