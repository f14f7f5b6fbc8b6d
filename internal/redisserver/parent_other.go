//go:build !linux

package redisserver

import "syscall"

func diesWithParent() *syscall.SysProcAttr { return nil }
