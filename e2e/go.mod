module github.com/whydrop/whydrop/e2e

go 1.26.0
