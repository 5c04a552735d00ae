package diagnose

import (
	"fmt"
	"reflect"
	"testing"
)

// TestNative evaluates every expression of the knowledge base in every recorded
// observation both ways.
func TestNative(t *testing.T) {
	t.Parallel()
	k := builtIn(t)
	quick, machine := 0, 0
	for n, o := range recorded(t) {
		if testing.Short() && n%10 != 0 {
			continue
		}
		m := newMatcher(&o, k)
		for i, in := range m.order {
			s := m.scope(in, in.total)
			s.Delta, s.Before, s.After, s.Value = 3, 4, 7, "some"
			c := k.causes[(n+i)%len(k.causes)]
			s.define(c.Lets)
			for _, e := range c.expressions() {
				program, err := e.program()
				if err != nil {
					t.Fatal(err)
				}
				v, err := e.quick()(s)
				if err == errMachine {
					machine++
					continue
				}
				quick++
				want, wantErr := e.onMachine(program, s)
				if !reflect.DeepEqual(v, want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
					t.Errorf("%s: %v, %v; the machine says %v, %v", e.text, v, err, want, wantErr)
				}
			}
		}
	}
	t.Logf("%d without the machine, %d with it", quick, machine)
	if quick < 1000 {
		t.Errorf("only %d expressions were evaluated without the machine", quick)
	}
}
