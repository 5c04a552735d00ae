package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// maxSymtab bounds a table of symbols and its names, each, in bytes: a
	// kernel with everything built in has 40 MiB.
	maxSymtab = 128 << 20
	// maxELFName bounds a name, in bytes (KSYM_NAME_LEN is 512).
	maxELFName = 1024
	// maxSections and maxSectionNames bound what debug/elf takes before it can
	// be asked: for each section it copies a name, at worst all of the names, in
	// bytes. A kernel has some 80 sections, with 2 KiB of names.
	maxSections     = 4096
	maxSectionNames = 32 << 20
)

// plainSections refuses an ELF file whose sections would take debug/elf much
// memory.
func plainSections(image []byte) error {
	const header, entry = 64, 64 // struct elf64_hdr, elf64_shdr
	if len(image) < header || image[elf.EI_CLASS] != byte(elf.ELFCLASS64) {
		return errors.New("not of a 64-bit machine")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if image[elf.EI_DATA] == byte(elf.ELFDATA2MSB) {
		order = binary.BigEndian
	}
	table, size := order.Uint64(image[40:]), order.Uint16(image[58:])
	count, names := uint64(order.Uint16(image[60:])), uint64(order.Uint16(image[62:]))
	if count == 0 && table != 0 || count > maxSections {
		return fmt.Errorf("more than %d sections", maxSections)
	}
	if count == 0 {
		return nil
	}
	if size != entry || names >= count || table > uint64(len(image)) || count*entry > uint64(len(image))-table {
		return fmt.Errorf("its table of sections is %w", errBroken)
	}
	s := image[table+names*entry:]
	if elf.SectionFlag(order.Uint64(s[8:]))&elf.SHF_COMPRESSED != 0 || order.Uint64(s[32:]) > maxSectionNames/count {
		return errors.New("the names of its sections are compressed, or too long")
	}
	return nil
}

// elf takes the symbols of an ELF file, of which image is all bytes, as if nm
// had printed them.
func (p *kallsymsParser) elf(e *elf.File, image []byte) error {
	switch {
	case e.Class != elf.ELFCLASS64:
		return errors.New("not of a 64-bit machine")
	case e.Type == elf.ET_REL:
		return errors.New("it was not linked: the functions of a module have no addresses before it is loaded")
	}
	var table *elf.Section
	for _, s := range e.Sections {
		if s.Type == elf.SHT_SYMTAB {
			table = s
		}
	}
	if table == nil {
		return errors.New("it has no table of symbols: it was stripped")
	}
	if int(table.Link) >= len(e.Sections) {
		return errors.New("its table of symbols has no names")
	}
	entries, err := sectionBytes(table, image, maxSymtab)
	if err != nil {
		return err
	}
	names, err := sectionBytes(e.Sections[table.Link], image, maxSymtab)
	if err != nil {
		return err
	}
	kinds := sectionKinds(e)
	for ; len(entries) >= elf.Sym64Size; entries = entries[elf.Sym64Size:] {
		// st_name, st_info, st_other, st_shndx, st_value (struct elf64_sym).
		section := int(e.ByteOrder.Uint16(entries[6:]))
		if section >= len(kinds) || kinds[section] == 0 {
			continue
		}
		if kind := elf.ST_TYPE(entries[4]); kind == elf.STT_SECTION || kind == elf.STT_FILE {
			continue
		}
		name := nameAt(names, e.ByteOrder.Uint32(entries))
		if len(name) == 0 {
			continue
		}
		kind := kinds[section]
		if elf.ST_BIND(entries[4]) != elf.STB_LOCAL {
			kind -= 't' - 'T'
		}
		if err := p.add(e.ByteOrder.Uint64(entries[8:]), kind, name, nil); err != nil {
			return err
		}
	}
	for i, s := range e.Sections {
		if kinds[i] == 't' {
			if err := p.add(s.Addr+s.Size, 'd', []byte("end"), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// sectionKinds are nm's letters for the symbols of each section: t for code, d
// for everything else that is loaded, 0 for the rest.
func sectionKinds(e *elf.File) []byte {
	kinds := make([]byte, len(e.Sections))
	for i, s := range e.Sections {
		switch {
		case s.Flags&elf.SHF_ALLOC == 0:
		case s.Flags&elf.SHF_EXECINSTR != 0:
			kinds[i] = 't'
		default:
			kinds[i] = 'd'
		}
	}
	return kinds
}

// sectionBytes are the bytes of a section, as they lie in the file.
func sectionBytes(s *elf.Section, image []byte, limit uint64) ([]byte, error) {
	switch {
	case s.Type == elf.SHT_NOBITS:
		return nil, fmt.Errorf("section %q is not in this file", s.Name)
	case s.Flags&elf.SHF_COMPRESSED != 0:
		return nil, fmt.Errorf("section %q is compressed", s.Name)
	case s.FileSize > limit:
		return nil, fmt.Errorf("section %q has more than %d MiB", s.Name, limit>>20)
	case s.Offset > uint64(len(image)) || s.FileSize > uint64(len(image))-s.Offset:
		return nil, fmt.Errorf("section %q is cut off", s.Name)
	}
	return image[s.Offset : s.Offset+s.FileSize], nil
}

// nameAt is the name that begins at an offset of a table of names; empty where
// there is none, or it is too long.
func nameAt(names []byte, offset uint32) []byte {
	if uint64(offset) >= uint64(len(names)) {
		return nil
	}
	names = names[offset:]
	end := bytes.IndexByte(names[:min(len(names), maxELFName)], 0)
	return names[:max(end, 0)]
}

// elfBuildID is the build id in an ELF file's notes; empty where it has none.
func elfBuildID(e *elf.File, image []byte) string {
	for _, s := range e.Sections {
		if s.Type != elf.SHT_NOTE {
			continue
		}
		if b, err := sectionBytes(s, image, maxNotes); err == nil {
			if id := parseBuildID(b, e.ByteOrder); id != "" {
				return id
			}
		}
	}
	return ""
}
