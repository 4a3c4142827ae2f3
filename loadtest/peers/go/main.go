// The same job with Go's standard library: decode, validate, count in a ring of
// sixty seconds under a mutex, answer with an id.
//
//	main PORT
//
// Amounts are exact, as integers at 10^-8, as long as a window's sum stays below
// 92 billion. Nothing is kept on a disk.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	windowSeconds  = 60
	aheadMsMax     = 1000
	fractionDigits = 8
	unitsPerOne    = 100_000_000
	bodyBytesMax   = 64 * 1024
	userIDBytesMax = 128
)

type transaction struct {
	Amount    json.Number `json:"amount"`
	Currency  string      `json:"currency"`
	Timestamp int64       `json:"timestamp"`
	UserID    string      `json:"user_id"`
}

type accepted struct {
	ID string `json:"id"`
}

type statistics struct {
	Count int64  `json:"count"`
	Sum   string `json:"sum"`
	Min   string `json:"min"`
	Max   string `json:"max"`
}

type slot struct {
	second, count, sum, min, max int64
}

type service struct {
	mutex   sync.Mutex
	ring    [windowSeconds]slot
	lastID  uint64
	process uint64
}

var errAmount = errors.New("amount must be a decimal with at most 8 fraction digits, not negative")

// units reads a JSON number without an exponent as an integer at 10^-8.
func units(number json.Number) (int64, error) {
	whole, fraction, _ := strings.Cut(string(number), ".")
	if whole == "" || whole[0] == '-' || len(fraction) > fractionDigits {
		return 0, errAmount
	}
	high, err := strconv.ParseUint(whole, 10, 63)
	if err != nil {
		return 0, errAmount
	}
	low := uint64(0)
	if fraction != "" {
		if low, err = strconv.ParseUint(fraction, 10, 63); err != nil {
			return 0, errAmount
		}
		for digits := len(fraction); digits < fractionDigits; digits++ {
			low *= 10
		}
	}
	if high > (math.MaxInt64-low)/unitsPerOne {
		return 0, errAmount
	}
	return int64(high*unitsPerOne + low), nil
}

func validCurrency(code string) bool {
	if len(code) < 3 || len(code) > 4 {
		return false
	}
	for i := 0; i < len(code); i++ {
		if code[i] < 'A' || code[i] > 'Z' {
			return false
		}
	}
	return true
}

// add counts one amount, and gives it an id that sorts by arrival.
func (s *service) add(second, amount, nowMs int64) uint64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	cell := &s.ring[second%windowSeconds]
	if cell.second != second {
		*cell = slot{second: second, min: amount, max: amount}
	}
	cell.count++
	cell.sum += amount
	if amount < cell.min {
		cell.min = amount
	}
	if amount > cell.max {
		cell.max = amount
	}
	s.lastID++
	if first := uint64(nowMs) << 16; s.lastID < first {
		s.lastID = first
	}
	return s.lastID
}

func (s *service) post(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	var t transaction
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyBytesMax)).Decode(&t); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	amount, err := units(t.Amount)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	nowMs := time.Now().UnixMilli()
	if !validCurrency(t.Currency) || len(t.UserID) > userIDBytesMax || t.Timestamp > nowMs+aheadMsMax {
		http.Error(w, "a field is wrong", http.StatusUnprocessableEntity)
		return
	}
	second := t.Timestamp / 1000
	if second <= nowMs/1000-windowSeconds {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	id := s.add(second, amount, nowMs)
	body, err := json.Marshal(accepted{s.identifier(id)})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	w.Write(body)
}

// identifier writes a UUID of version 7: time, counter, and what is this process's own.
func (s *service) identifier(id uint64) string {
	const digits = "0123456789abcdef"
	high := id>>16<<16 | 0x7000 | id>>4&0xfff
	low := 0x8000_0000_0000_0000 | id&0xf<<58 | s.process
	var text [36]byte
	nibble := 0
	for i := range text {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			text[i] = '-'
			continue
		}
		half := high
		if nibble >= 16 {
			half = low
		}
		text[i] = digits[half>>(60-4*uint(nibble%16))&0xf]
		nibble++
	}
	return string(text[:])
}

func (s *service) stats(w http.ResponseWriter, _ *http.Request) {
	oldest := time.Now().Unix() - windowSeconds
	total := slot{min: math.MaxInt64}
	s.mutex.Lock()
	for _, cell := range s.ring {
		if cell.second <= oldest || cell.count == 0 {
			continue
		}
		total.count += cell.count
		total.sum += cell.sum
		if cell.min < total.min {
			total.min = cell.min
		}
		if cell.max > total.max {
			total.max = cell.max
		}
	}
	s.mutex.Unlock()
	if total.count == 0 {
		total.min = 0
	}
	w.Header().Set("Content-Type", "application/json")
	answer := statistics{total.count, decimal(total.sum), decimal(total.min), decimal(total.max)}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		log.Print(err)
	}
}

func decimal(units int64) string {
	return fmt.Sprintf("%d.%08d", units/unitsPerOne, units%unitsPerOne)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: main PORT")
	}
	random := rand.New(rand.NewSource(time.Now().UnixNano()))
	s := &service{process: random.Uint64() & (1<<48 - 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("/transactions", s.post)
	mux.HandleFunc("/stats", s.stats)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], mux))
}
