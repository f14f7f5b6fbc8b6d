package redisserver

import "syscall"

// diesWithParent keeps a server from outliving a test that was killed.
func diesWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
